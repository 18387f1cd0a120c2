local plot = require("perigee.plot")
local run = require("perigee.train.run")
local system = require("perigee.system")

local function temporary(ending)
    local path = os.tmpname()
    os.remove(path)
    return path .. ending
end

describe("plot", function()
    it("is tested with gnuplot", function()
        assert.is_true(plot.available(), "gnuplot is missing (Debian: apt install gnuplot-nox)")
    end)

    it("draws curves as text, PNG and SVG", function()
        local series = { { x = { 0, 1, 2 }, y = { 3, 1, 2 }, title = "a" }, { y = { 1, 0 / 0, 2 } } }
        local text = plot.line(series, { title = "curves", width = 60, height = 15 })
        assert.matches("curves", text)
        assert.matches("%*", text)
        local png = plot.line(series, { path = temporary(".png"), xlabel = "x", ylabel = "y", logx = false })
        assert.equal("\137PNG", system.read_file(png):sub(1, 4))
        local svg = plot.line(series, { path = temporary(".svg") })
        assert.matches("<svg", system.read_file(svg))
        os.remove(png)
        os.remove(svg)
    end)

    it("draws a run's losses", function()
        local folder = temporary("")
        local r = run.Run(folder, { tensorboard = false })
        for step = 1, 20 do
            r:log(step, { ["loss/train"] = 3 / step, lr = 0.1 })
        end
        r:log(20, { ["loss/val"] = 0.5 })
        r:close()
        assert.matches("loss/train", plot.loss_curve(folder))
        assert.matches("lr", plot.loss_curve(folder .. "/metrics.jsonl", { keys = { "lr" } }))
        assert.has_error(function() plot.loss_curve(folder, { keys = { "nothing" } }) end)
        assert.has_error(function() plot.loss_curve(folder .. "/missing") end)
    end)

    it("draws heat maps", function()
        local png = plot.heatmap({ { 0, 1 }, { 2, 3 }, { 4, 5 } }, {
            path = temporary(".png"), xticks = { "a", "it's" }, yticks = { "x", "y", "z" },
        })
        assert.is_true(#system.read_file(png) > 100)
        os.remove(png)
        assert.has_error(function() plot.heatmap { { 1, 2 }, { 3 } } end)
        assert.has_error(function() plot.heatmap({ { 1 } }, { xticks = { "a", "b" } }) end)
    end)

    it("runs nothing that stands in a title or a path", function()
        local mark = temporary("")
        local touch = "touch " .. mark
        local hostile = ("'; system('%s'); `%s` \"$(%s)\"\n!%s\n@x"):format(touch, touch, touch, touch)
        plot.line({ { y = { 1, 2 }, title = hostile } }, { title = hostile, xlabel = hostile })
        pcall(plot.line, { { y = { 1, 2 } } }, { path = temporary("") .. "'`" .. touch .. "`.png", terminal = "png" })
        assert.is_false(system.exists(mark))
    end)

    it("says what is wrong", function()
        local function message(...)
            local ok, why = pcall(...)
            assert.is_false(ok)
            return why
        end
        assert.matches("terminal must be png, svg or dumb, got pdf",
            message(plot.line, { { y = { 1 } } }, { path = "x.pdf" }))
        assert.matches("2 x and 1 y", message(plot.line, { { x = { 1, 2 }, y = { 1 } } }))
        assert.matches("y%[2%] must be a number", message(plot.line, { { y = { 1, "2" } } }))
        assert.matches("list of series", message(plot.line, {}))
        assert.matches("/no/such/folder/x.png",
            message(plot.line, { { y = { 1, 2 } } }, { path = "/no/such/folder/x.png" }))
        assert.matches("unknown option colour", message(plot.line, { { y = { 1 } } }, { colour = "red" }))
    end)

    it("says what to install where gnuplot is missing", function()
        local popen = io.popen
        io.popen = function() return popen("true", "r") end   -- luacheck: ignore 122
        local ok, why = pcall(plot.line, { { y = { 1, 2 } } })
        io.popen = popen   -- luacheck: ignore 122
        assert.is_false(ok)
        assert.matches("gnuplot is not installed %(Debian: apt install gnuplot%-nox%)", why)
    end)
end)
