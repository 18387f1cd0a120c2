-- Spec files that need a CUDA device. Where there is one, their body runs here; where there is none, the file runs
-- again in processes where CUDA is emulated, once in each of its environments.
local pg = require "perigee"
local shell = require "spec.build.shell"

--- The hostile ways of the emulated device: work runs late and streams take turns at random; the host may not touch
--- the device's memory.
local HOSTILE = { "", "PERIGEE_CUDA_LATE=7", "PERIGEE_CUDA_GUARD=1" }

---@param file string the spec file's path
---@param body function describes and its
---@param environments string[]? variables of the emulated runs
return function(file, body, environments)
    if pg.cuda.is_available() then
        return body()
    end
    if os.getenv("PERIGEE_CUDA") == "emulated" then
        error("PERIGEE_CUDA=emulated, but: " .. select(2, pg.cuda.is_available()))
    end
    -- busted gives its functions to spec files alone
    local spec = getfenv(body)
    local describe, it, assert = spec.describe, spec.it, spec.assert
    describe("on emulated CUDA:", function()
        for _, environment in ipairs(environments or HOSTILE) do
            it(("%s %s"):format(file, environment), function()
                local status, output = shell.run(("PERIGEE_CUDA=emulated %s PERIGEE_BUILD=%s luajit /usr/bin/busted %s")
                    :format(environment, shell.quote(shell.build), shell.quote(file)))
                assert.equal(0, status, output)
                assert.matches("[1-9]%d* successes / 0 failures / 0 errors", output)
            end)
        end
    end)
end
