-- Every op on the cpu and on CUDA code. Without a GPU that code runs emulated.
local shell = require "spec.build.shell"
local quote = shell.quote

local function compare(arguments)
    return shell.run(("PERIGEE_CUDA=emulated PERIGEE_BUILD=%s %s spec/devices/compare.lua cuda %s"):format(
        quote(shell.build), shell.interpreter, arguments))
end

describe("every op and its gradients", function()
    local status, output

    lazy_setup(function()
        status, output = compare("plant")
    end)

    it("give on cuda what they give on the cpu", function()
        local cases, differ = output:match("(%d+) cases, (%d+) differ, %d+ refused on both\n$")
        assert.is_truthy(cases, output)
        assert.is_nil(output:find("NO CASE", 1, true), output)
        assert.equal("1", differ, output)
        assert.is_true(tonumber(cases) > 5000)
        assert.equal(0, status)
    end)

    it("are compared by something that sees a difference", function()
        assert.matches("DIFFERS %(planted%) planted: result 1 %(float32%): largest difference 0%.001", output)
    end)
end)
