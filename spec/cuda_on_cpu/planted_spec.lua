-- Each of the emulator's modes finds the bugs of its kind (planted.cu has one of each) and is silent about the same
-- code without the bug.
local shell = require "spec.build.shell"
local quote = shell.quote

local FLAGS = "-std=c++17 -ffp-contract=off -fno-math-errno -fno-strict-aliasing -fvisibility=hidden -Wall -Wextra "
    .. "-Wno-unknown-pragmas -Ikernels/cuda_on_cpu/include -Ikernels/cuda_on_cpu"

-- How the program is compiled, and run, in each mode.
local builds = {
    plain = "-O2",
    races = "-O1 -g -fsanitize=thread",
    bounds = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all",
}
local modes = {
    plain = { build = "plain", prefix = "" },
    poison = { build = "plain", prefix = "PERIGEE_CUDA_POISON=1" },
    reverse = { build = "plain", prefix = "PERIGEE_CUDA_ORDER=reverse" },
    shuffled = { build = "plain", prefix = "PERIGEE_CUDA_ORDER=7" },
    late = { build = "plain", prefix = "PERIGEE_CUDA_LATE=3" },
    guard = { build = "plain", prefix = "PERIGEE_CUDA_GUARD=1" },
    races = { build = "races", prefix = "setarch -R env TSAN_OPTIONS=exitcode=66" },
    bounds = { build = "bounds", prefix = "ASAN_OPTIONS=detect_leaks=0:exitcode=66 UBSAN_OPTIONS=exitcode=66" },
}

local RACE = { races = "data race" }
-- What each bug looks like in the modes that must find it.
local found = {
    barrier_missing = { races = "data race", shuffled = "^wrong\n" },
    reuse_without_barrier = { races = "data race", shuffled = "^wrong\n" },
    warp_synchronous = { races = "data race", shuffled = "^wrong\n" },
    barrier_skipped = { plain = "a thread ends while 32 others wait in a barrier that it has not reached" },
    two_barriers = { plain = "threads of one block meet in two different barriers, the other at .*planted%.cu:%d+" },
    mask_mismatched = { plain = "deadlock: .*16 of 32 threads wait, thread 0 in a shuffle at .*planted%.cu:%d+" },
    lane_outside = { plain = "lane 0 shuffles from lane 20, which its mask 0000ffff leaves out" },
    uninitialised_shared = { poison = "^wrong\n" },
    uninitialised_dynamic = { poison = "^wrong\n" },
    wait_forgotten = { plain = "^wrong\n", races = "data race" },
    wait_never = { plain = "a thread ends with 1 asynchronous copies that it never waited for" },
    global_race = RACE,
    race_between_blocks = RACE,
    block_order = { reverse = "^wrong\n", shuffled = "^wrong\n", races = "data race" },
    beyond_global = { bounds = "heap%-buffer%-overflow" },
    beyond_dynamic = { bounds = "heap%-buffer%-overflow" },
    beyond_static = { bounds = "index 256 out of bounds" },
    beyond_static_pointer = { bounds = "global%-buffer%-overflow" },
    misaligned = { bounds = "misaligned address" },
    freed_memory = { bounds = "heap%-use%-after%-free", guard = "" },
    event_missing = { late = "^wrong\n" },
    buffer_reused = { late = "^wrong\n" },
    host_access = { guard = "" },
    copy_too_long = { plain = "^failed: invalid argument" },
    wrong_direction = { plain = "^failed: invalid argument" },
    shared_limit = { plain = "^failed: invalid argument" },
    synchronise_in_capture = { plain = "^failed: operation not permitted when stream is capturing" },
}

local function sorted(t)
    local names = {}
    for name in pairs(t) do names[#names + 1] = name end
    table.sort(names)
    return names
end

describe("a planted bug", function()
    local folder

    lazy_setup(function()
        folder = shell.temporary_folder()
        local commands = {}
        local archive = quote(shell.build .. "/libcuda_on_cpu.a")
        for name, flags in pairs(builds) do
            commands[#commands + 1] = ("env -u LD_PRELOAD g++ %s %s -x c++ %s -x none %s -lpthread -o %s"):format(FLAGS,
                flags, "spec/cuda_on_cpu/planted.cu", archive, quote(folder .. "/" .. name))
        end
        shell.must(table.concat(commands, " && "))
    end)
    lazy_teardown(function()
        shell.run("rm -rf " .. quote(folder))
    end)

    local function run(mode, what)
        local m = modes[mode]
        local program = quote(folder .. "/" .. m.build)
        return shell.run(("env -u LD_PRELOAD %s timeout 60 %s %s"):format(m.prefix, program, what))
    end

    it("stands in this list", function()
        local names = {}
        for name in shell.must(quote(folder .. "/plain")):gmatch("%S+") do names[#names + 1] = name end
        table.sort(names)
        assert.same(sorted(found), names)
        local readme = shell.read("kernels/cuda_on_cpu/README.md")
        for _, name in ipairs(names) do
            assert.is_truthy(readme:find("`" .. name .. "`", 1, true), name .. " is not in the README")
        end
    end)

    for _, bug in ipairs(sorted(found)) do
        for _, mode in ipairs(sorted(found[bug])) do
            it(("is found: %s (%s)"):format(bug, mode), function()
                local status, output = run(mode, bug)
                assert.is_truthy(output:find(found[bug][mode]), output)
                if mode == "races" or mode == "bounds" then
                    assert.equal(66, status, output)
                elseif mode == "guard" then
                    assert.equal(139, status, output)
                else
                    assert.equal(0, status, output)
                end
            end)
        end
    end

    for _, mode in ipairs(sorted(modes)) do
        it("is not seen where there is none: " .. mode, function()
            local status, output = run(mode, "fixed")
            local expected = {}
            for name in shell.must(quote(folder .. "/plain")):gmatch("%S+") do
                expected[#expected + 1] = name .. " right\n"
            end
            assert.equal(table.concat(expected), output)
            assert.equal(0, status)
        end)
    end
end)
