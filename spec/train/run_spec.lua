local json = require("perigee.json")
local run = require("perigee.train.run")
local system = require("perigee.system")

local function temporary_folder()
    local path = os.tmpname()
    os.remove(path)
    return path .. "/a/b"
end

describe("train.Run", function()
    it("writes one line of metrics a call", function()
        local folder = temporary_folder()
        local r = run.Run(folder)
        r:config { lr = 0.1, name = "x" }
        r:log(1, { loss = 2.25, lr = 0.1 })
        r:log(2, { loss = 0 / 0 })
        r:log(3, { loss = math.huge })
        r:close()
        local lines = {}
        for line in system.read_file(folder .. "/metrics.jsonl"):gmatch("[^\n]+") do
            lines[#lines + 1] = line
        end
        assert.equal(3, #lines)
        assert.equal(2.25, json.decode(lines[1]).loss)
        assert.equal("NaN", json.decode(lines[2]).loss)
        assert.equal(0.1, json.decode(system.read_file(folder .. "/config.json")).lr)
        local rows = run.read_metrics(folder .. "/metrics.jsonl")
        assert.is_true(rows[2].loss ~= rows[2].loss)
        assert.equal(math.huge, rows[3].loss)
        assert.is_true(system.exists(r.events.path))
    end)

    it("starts anew, or goes on from a step", function()
        local folder = temporary_folder()
        local r = run.Run(folder, { tensorboard = false })
        for step = 10, 50, 10 do
            r:log(step, { loss = step })
        end
        r:close()
        r = run.Run(folder, { resume_step = 30, tensorboard = false })
        r:log(40, { loss = -1 })
        r:close()
        local steps, losses = {}, {}
        for i, row in ipairs(run.read_metrics(folder .. "/metrics.jsonl")) do
            steps[i], losses[i] = row.step, row.loss
        end
        assert.same({ 10, 20, 30, 40 }, steps)
        assert.same({ 10, 20, 30, -1 }, losses)
        run.Run(folder, { tensorboard = false }):close()
        assert.same({}, run.read_metrics(folder .. "/metrics.jsonl"))
    end)

    it("reads over a last line that an interruption cut, not over damage", function()
        local folder = temporary_folder()
        run.Run(folder, { tensorboard = false }):close()
        local path = folder .. "/metrics.jsonl"
        assert(system.write_file(path, '{"step":1,"loss":2}\n{"step":2,"lo'))
        assert.equal(1, #run.read_metrics(path))
        assert(system.write_file(path, '{"step":1\n{"step":2}\n'))
        local ok, why = pcall(run.read_metrics, path)
        assert.is_false(ok)
        assert.matches("line 1", why)
    end)

    it("refuses bad metrics and bad folders", function()
        local r = run.Run(temporary_folder(), { tensorboard = false })
        assert.has_error(function() r:log(1.5, { loss = 1 }) end)
        assert.has_error(function() r:log(1, { loss = "1" }) end)
        assert.has_error(function() r:log(1, { step = 1 }) end)
        r:close()
        assert.has_error(function() r:log(1, { loss = 1 }) end)
        assert.has_error(function() run.Run("/proc/no") end)
        assert.has_error(function() run.Run(temporary_folder(), { resume = 3 }) end)
    end)
end)

describe("write_file", function()
    it("keeps the old file where the new one cannot be written", function()
        local path = os.tmpname()
        assert(system.write_file(path, "old"))
        local ok, why = system.write_file(path .. "/x", "new")
        assert.is_nil(ok)
        assert.matches("cannot write", why)
        assert.equal("old", system.read_file(path))
        os.remove(path)
    end)

    it("says so where the disk is full", function()
        -- A link in place of the temporary file leads the writing to the device that is always full.
        local folder = os.tmpname()
        os.remove(folder)
        assert(system.mkdir(folder))
        local path = folder .. "/state"
        assert(system.write_file(path, "old"))
        assert.equal(0, os.execute(("ln -s /dev/full %s.tmp%d"):format(path, system.getpid())))
        local ok, why = system.write_file(path, "new")
        assert.is_nil(ok)
        assert.matches("cannot write .*No space left", why)
        assert.equal("old", system.read_file(path))
    end)
end)
