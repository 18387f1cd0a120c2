-- Each of the emulator's modes finds the bugs of its kind (planted.cu has one of each) and is silent about the same
-- code without the bug.
local program = require "spec.cuda_on_cpu.program"
local shell = require "spec.build.shell"

local modes, sorted = program.modes, program.sorted
local RACE = { races = "data race" }
-- What each bug looks like in the modes that must find it.
local found = {
    barrier_missing = { races = "data race", shuffled = "^wrong\n" },
    reuse_without_barrier = { races = "data race", shuffled = "^wrong\n" },
    warp_synchronous = { races = "data race", shuffled = "^wrong\n" },
    barrier_skipped = { plain = "a thread ends while 32 others wait in a barrier that it has not reached" },
    two_barriers = { plain = "threads of one block meet in two different barriers, the other at .*planted%.cu:%d+" },
    mask_mismatched = { plain = "deadlock: .*16 of 32 threads wait, thread 0 in a shuffle at .*planted%.cu:%d+" },
    two_collectives = { plain = "lanes of one warp meet in different collectives with mask ffffffff" },
    lane_outside = { plain = "lane 0 shuffles from lane 20, which its mask 0000ffff leaves out" },
    uninitialised_shared = { poison = "^wrong\n" },
    uninitialised_dynamic = { poison = "^wrong\n" },
    wait_forgotten = { plain = "^wrong\n", races = "data race" },
    wait_never = { plain = "a thread ends with 1 asynchronous copies that it never waited for" },
    copy_of_another = { shuffled = "^wrong\n", races = "data race" },
    global_race = RACE,
    variable_race = RACE,
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

describe("a planted bug", function()
    local compiled

    lazy_setup(function() compiled = program.compile("spec/cuda_on_cpu/planted.cu") end)
    lazy_teardown(function() compiled.remove() end)

    local function bugs()
        local status, output = compiled.run("plain")
        assert.equal(0, status, output)
        local names = {}
        for name in output:gmatch("%S+") do names[#names + 1] = name end
        return names
    end

    it("stands in this list and in the folder's README", function()
        local names = bugs()
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
                local status, output = compiled.run(mode, bug)
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
            local status, output = compiled.run(mode, "fixed")
            assert.equal(table.concat(bugs(), " right\n") .. " right\n", output)
            assert.equal(0, status)
        end)
    end
end)
