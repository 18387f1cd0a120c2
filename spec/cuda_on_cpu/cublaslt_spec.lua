-- The stand-in of cuBLASLt refuses what the library refuses, and computes what its header says.
local program = require "spec.cuda_on_cpu.program"

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
