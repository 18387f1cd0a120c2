local progress = require("perigee.train.progress")

-- A file that keeps what is written, and a clock that the test moves.
local function fake()
    local f = { text = "", now = 100 }
    function f:write(...)
        for _, part in ipairs { ... } do
            self.text = self.text .. part
        end
    end
    function f.flush() end
    function f.clock() return f.now end
    return f
end

describe("train.progress", function()
    it("shows fraction, rate, time left and postfix", function()
        local f = fake()
        local bar = progress(200, { desc = "train", file = f, clock = f.clock, enabled = true, interval = 0 })
        f.now = 110
        bar:set_postfix { loss = 2.5, val = 1 }
        bar:update(50)
        local line = bar:line(120)
        assert.matches("^train:  25%% |#+%-+| 50/200 %[00:10<00:30, 5%.0 it/s, loss=2%.5, val=1%]$", line)
        assert.matches("\r" .. "train:  25%%", f.text)
        f.now = 4000
        bar:update(150)
        bar:close()
        assert.matches("100%%", f.text)
        assert.equal("\n", f.text:sub(-1))
    end)

    it("fits into the terminal", function()
        local f = fake()
        local bar = progress(10, { file = f, clock = f.clock, enabled = true })
        for _, columns in ipairs { 20, 40, 60, 100 } do
            assert.is_true(#bar:line(columns) <= columns)
        end
    end)

    it("writes nothing where it is disabled", function()
        local f, log = fake(), fake()
        local bar = progress(3, { file = f, log = log, clock = f.clock, enabled = false })
        for _ = 1, 3 do
            bar:update()
        end
        bar:write("a line")
        bar:close()
        assert.equal("", f.text)
        assert.equal("a line\n", log.text)
    end)

    it("draws at most every interval", function()
        local f = fake()
        local bar = progress(1000, { file = f, clock = f.clock, enabled = true, interval = 1 })
        for _ = 1, 500 do
            f.now = f.now + 0.01
            bar:update()
        end
        local _, drawings = f.text:gsub("\r", "")
        assert.is_true(drawings >= 4 and drawings <= 7, drawings)
    end)

    it("copes without a total and with zero", function()
        local f = fake()
        local bar = progress(nil, { file = f, clock = f.clock, enabled = true, interval = 0 })
        f.now = 102
        bar:update(4)
        assert.matches("^4 %[00:02<%?, 2%.0 it/s%]$", bar:line(80))
        assert.matches("100%%", progress(0, { file = f, clock = f.clock, enabled = true }):line(80))
    end)

    it("leaves what was done before out of the rate", function()
        local f = fake()
        local bar = progress(100, { file = f, clock = f.clock, enabled = true, initial = 50 })
        f.now = 110
        bar:update(10)
        assert.matches("60/100 %[00:10<00:40, 1%.0 it/s%]", bar:line(100))
    end)

    it("refuses unknown options", function()
        assert.has_error(function() progress(1, { des = "x" }) end)
    end)
end)
