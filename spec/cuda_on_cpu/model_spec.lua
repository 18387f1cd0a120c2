-- The emulator keeps CUDA's promises to a kernel and to its host, in each of its modes: model.cu, one case a promise.
local program = require "spec.cuda_on_cpu.program"

describe("emulated CUDA", function()
    local compiled

    lazy_setup(function() compiled = program.compile("spec/cuda_on_cpu/model.cu") end)
    lazy_teardown(function() compiled.remove() end)

    for _, mode in ipairs(program.sorted(program.modes)) do
        it("does what CUDA promises: " .. mode, function()
            local status, output = compiled.run(mode)
            local right = select(2, output:gsub("%f[%w_][%w_]+ right\n", ""))
            assert.is_nil(output:find("wrong", 1, true), output)
            assert.equal(17, right, output)
            assert.equal(0, status, output)
        end)
    end
end)
