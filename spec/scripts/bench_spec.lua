--- scripts/bench and its two sides: the same rows by name, mistakes that are told, and a row that runs.

local shell = require "spec.build.shell"

local program = (os.getenv "PERIGEE_BUILD" or "build") .. "/perigee"

describe("scripts/bench.lua", function()
    local function rows()
        local status, output = shell.run(program .. " scripts/bench.lua --list")
        assert.equal(0, status)
        local names = {}
        for name in output:gmatch "%S+" do
            names[#names + 1] = name
        end
        return names
    end

    it("has the rows of bench_torch.py, in order", function()
        local names = {}
        for line in io.lines "scripts/bench_torch.py" do
            if names.next then
                names[#names + 1] = line:match "^def ([%w_]+)"
            end
            names.next = line == "@row"
        end
        names.next = nil
        assert.is_true(#names > 20)
        assert.same(names, rows())
    end)

    it("prints a line of JSON for a row", function()
        local status, output = shell.run(program .. " scripts/bench.lua --smoke --threads=1 op_view")
        assert.equal(0, status)
        local line = require("cjson").decode(output)
        assert.equal("perigee", line.arm)
        assert.equal("op_view", line.row)
        assert.equal(1, line.threads)
        assert.is_true(line.ms > 0)
    end)

    it("refuses rows that there are not", function()
        local status, output = shell.run(program .. " scripts/bench.lua op_viev")
        assert.equal(2, status)
        assert.matches("unknown row or option op_viev", output, 1, true)
    end)
end)

describe("scripts/bench", function()
    it("tells what it does not know before it measures", function()
        for command, message in pairs {
            ["scripts/bench --against jax"] = "--against jax: only torch is known",
            ["scripts/bench --rounds none"] = "--rounds none: a whole number from 1 was expected",
            ["scripts/bench --python"] = "--python needs a value",
            ["scripts/bench --fast"] = "unknown option --fast",
        } do
            local status, output = shell.run(command)
            assert.equal(2, status, command)
            assert.matches(message, output, 1, true)
        end
        local status, output = shell.run("scripts/bench --against torch --python /nowhere/python3")
        assert.equal(1, status)
        assert.matches("/nowhere/python3 cannot import torch", output, 1, true)
    end)
end)
