-- Devices by name, and the kernels that the cpu runs.

local pg = require "perigee"
local shell = require "spec.build.shell"

local function refused(pattern, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok, "was not refused: " .. pattern)
    assert.is_truthy(message:find(pattern, 1, true), message)
end

describe("devices", function()
    it("are found by name; others are errors that list what there is", function()
        assert.equal("cpu", tostring(pg.ones(1, { device = "cpu" }).device))
        assert.equal("cpu", tostring(pg.ones(1, { device = "cpu:0" }).device))
        if not pg.cuda.is_available() then
            local _, why = pg.cuda.is_available()
            refused(("device 'cuda': %s (devices here: cpu)"):format(why), pg.ones, 1, { device = "cuda" })
            refused(("device 'cuda:1': %s"):format(why), pg.ones, 1, { device = "cuda:1" })
        end
        local wrong = { "", "gpu", "cpu:1", "cpu:", "cpu:x", "cpu:-1", "cpu:+0", "cuda:", "CPU", ("x"):rep(5000) }
        for _, name in ipairs(wrong) do
            refused("unknown device '", pg.ones, 1, { device = name })
        end
    end)

    it("have a default, the cpu until it is set", function()
        assert.equal("cpu", pg.get_default_device())
        pg.set_default_device("cpu:0")
        assert.equal("cpu", pg.get_default_device())
        assert.equal("cpu", pg.zeros(2).device)
        refused("unknown device 'gpu'", pg.set_default_device, "gpu")
        refused("expected a name such as 'cpu' or 'cuda', got the number 1", pg.set_default_device, 1)
        pg.set_default_device(nil)
        assert.equal("cpu", pg.get_default_device())
    end)

    it("take a tensor to where it is", function()
        local x = pg.ones(2)
        assert.is_true(x:to("cpu"):same_storage(x))
        assert.is_false(x:to("cpu", { copy = true }):same_storage(x))
        if not pg.cuda.is_available() then
            refused(select(2, pg.cuda.is_available()), x.to, x, "cuda")
        end
    end)
end)

describe("the cpu's kernels", function()
    local folder, script
    setup(function()
        folder = shell.temporary_folder()
        script = folder .. "/isa.lua"
        shell.write(script, [[
            package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path
            local pg, ffi = require "perigee", require "ffi"
            print(pcall(function() return pg.arange(5):sum():item() end))
            print(ffi.string(require("perigee.ffi").C.pg_cpu_isa()))
        ]])
    end)
    teardown(function() shell.must("rm -rf " .. shell.quote(folder)) end)

    local function run(isa)
        return shell.must(("PERIGEE_CPU_ISA=%s %s %s"):format(shell.quote(isa), shell.quote(shell.build .. "/perigee"),
            shell.quote(script)))
    end

    it("are capped by PERIGEE_CPU_ISA, and never better than the machine", function()
        local best = run("")
        assert.equal("true\t10\nbaseline\n", run("baseline"))
        local order = { baseline = 1, avx2 = 2, avx512 = 3 }
        local limit = order[best:match("(%w+)\n$")]
        for isa, rank in pairs(order) do
            assert.equal(math.min(rank, limit), order[run(isa):match("(%w+)\n$")], isa)
        end
    end)

    it("are an error at the first use where the word is unknown", function()
        local output = run("avx1024")
        assert.matches("^false\t.*PERIGEE_CPU_ISA: expected baseline, avx2 or avx512, got 'avx1024'", output)
    end)
end)
