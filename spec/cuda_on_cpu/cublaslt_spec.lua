-- The stand-in of cuBLASLt refuses what the library refuses, and computes what its header says.
local program = require "spec.cuda_on_cpu.program"
local shell = require "spec.build.shell"

describe("the stand-in of cuBLASLt", function()
    local compiled

    lazy_setup(function() compiled = program.compile("spec/cuda_on_cpu/cublaslt.cu") end)
    lazy_teardown(function() compiled.remove() end)

    for _, mode in ipairs { "plain", "late", "bounds" } do
        it("answers as the library: " .. mode, function()
            local status, output = compiled.run(mode)
            assert.equal(0, status, output)
            assert.equal("37 cases\n", output)
        end)
    end
end)

describe("a machine where cuBLASLt", function()
    -- A process of its own, since the library is looked for once: what a product says, twice, and what comes after.
    local function run(without)
        local status, output = shell.run(([[PERIGEE_CUDA=emulated PERIGEE_CUDA_WITHOUT=%s PERIGEE_BUILD=%s %s -e '
            package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path
            local pg = require "perigee"
            local x = pg.ones(3, 3, { device = "cuda" })
            for _ = 1, 2 do print(pcall(function() return pg.matmul(x, x):sum():item() end)) end
            print((x + x):sum():item(), pg.matmul(x:cpu(), x:cpu()):sum():item())
        ']]):format(without, shell.quote(shell.build), shell.interpreter))
        assert.equal(0, status, output)
        local first, second, after = output:match("^([^\n]+)\n([^\n]+)\n([^\n]+)\n$")
        assert.is_truthy(after, output)
        assert.equal(first, second)
        assert.equal("18\t27", after)
        return first
    end

    it("is not installed says which file is missing and what to install, and goes on", function()
        local said = run("cublasLt")
        assert.matches("^false\t.*matmul", said)
        assert.is_truthy(said:find("matrix products need cuBLASLt, and none of libcublasLt.so.13, "
            .. "libcublasLt.so.12 and libcublasLt.so can be opened (libcublasLt.so: cannot open", 1, true), said)
        assert.is_truthy(said:find("install cuBLAS of the CUDA toolkit, 12 or 13", 1, true), said)
    end)

    it("lacks a function says which", function()
        local said = run("cublasLtMatmulAlgoGetHeuristic")
        assert.is_truthy(said:find("matrix products need cuBLASLt 12 or 13: the one found lacks "
            .. "cublasLtMatmulAlgoGetHeuristic", 1, true), said)
    end)

    it("is there multiplies", function()
        assert.equal("true\t27", run("0"))
    end)
end)
