-- The same bits at every number of threads, and no race: `scripts/test --threads` runs this under the thread sanitizer.
local pg = require "perigee"
local shell = require "spec.build.shell"
local quote = shell.quote

describe("the bits of every op, of its gradients and of a training run", function()
    local function run(arguments)
        return shell.run(("PERIGEE_BUILD=%s PERIGEE_GRAIN=1 %s spec/threads/every_op.lua %s"):format(
            quote(shell.build), shell.interpreter, arguments))
    end

    it("are the same at 1, 2 and 3 threads", function()
        local status, output = run("")
        local cases, differ, missing = output:match("(%d+) cases, (%d+) differ, (%d+) missing\n$")
        assert.is_truthy(cases, output)
        assert.equal("0", differ, output)
        assert.equal("0", missing, output)
        assert.is_true(tonumber(cases) > 500)
        assert.equal(0, status)
    end)

    it("are compared by something that sees a difference", function()
        local _, output = run("plant")
        assert.matches("DIFFERS at 2 threads, result 1: planted\n%d+ cases, 1 differ", output)
    end)
end)

describe("threads that use the engine at once", function()
    local folder, program, draws

    local function compile(name)
        local made = folder .. "/" .. name
        local flags = shell.build:find("tsan") and "-fsanitize=thread" or ""
        local build = quote(shell.build)
        shell.must(("gcc -std=gnu11 -Wall -Wextra -Werror -g %s -Iengine/include spec/threads/%s.c -o %s " ..
            "-L%s -lperigee -Wl,-rpath,%s -pthread"):format(flags, name, quote(made), build, build))
        return made
    end

    lazy_setup(function()
        folder = shell.temporary_folder()
        program, draws = compile("concurrent"), compile("draws")
    end)

    lazy_teardown(function()
        shell.run("rm -rf " .. quote(folder))
    end)

    it("get right results and leave nothing behind", function()
        for _, grain in ipairs { "", "PERIGEE_GRAIN=1 " } do
            assert.equal("4 of 4 threads, 0 tensors live\n", shell.must(grain .. quote(program)))
        end
    end)

    it("get right results on CUDA code too", function()
        for _, environment in ipairs { "", "PERIGEE_CUDA_LATE=3 " } do
            assert.equal("4 of 4 threads, 0 tensors live\n",
                shell.must("PERIGEE_CUDA=emulated " .. environment .. quote(program) .. " cuda"))
        end
    end)

    it("draw what their seeds say, on the CPU with several workers and on CUDA code", function()
        for _, device in ipairs { "cpu", "cuda" } do
            for _, environment in ipairs { "", "PERIGEE_CUDA_LATE=3 " } do
                assert.equal("3 of 3 threads, 0 tensors live\n", shell.must(
                    ("PERIGEE_GRAIN=64 PERIGEE_CUDA=emulated %s%s %s"):format(environment, quote(draws), device)))
            end
        end
    end)

    if shell.build:find("tsan") then
        it("are watched by something that sees a race", function()
            local status, output = shell.run(quote(program) .. " race")
            assert.matches("ThreadSanitizer: data race", output)
            assert.not_equal(0, status)
        end)
    end
end)

describe("set_num_threads", function()
    local before = pg.get_num_threads()

    after_each(function()
        pg.set_num_threads(before)
    end)

    it("is read back, and refuses what is no number of threads", function()
        pg.set_num_threads(3)
        assert.equal(3, pg.get_num_threads())
        for _, wrong in ipairs { 0, -1, 1e6, 1.5, "two" } do
            assert.has_error(function() pg.set_num_threads(wrong) end)
            assert.equal(3, pg.get_num_threads())
        end
    end)
end)
