-- CUDA programs of the specs: compiled against the emulator, plain or with a sanitizer, and run in its modes.
local shell = require "spec.build.shell"
local quote = shell.quote

local program = {}

local FLAGS = "-std=c++17 -ffp-contract=off -fno-math-errno -fno-strict-aliasing -fvisibility=hidden -Wall -Wextra "
    .. "-Werror -Wno-unknown-pragmas -Ikernels/cuda_on_cpu/include -Ikernels/cuda_on_cpu"

local builds = {
    plain = "-O2",
    races = "-O1 -g -fsanitize=thread",
    bounds = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all",
}

--- How the program is built, and what stands before its name.
program.modes = {
    plain = { build = "plain", prefix = "env" },
    poison = { build = "plain", prefix = "env PERIGEE_CUDA_POISON=1" },
    reverse = { build = "plain", prefix = "env PERIGEE_CUDA_ORDER=reverse" },
    shuffled = { build = "plain", prefix = "env PERIGEE_CUDA_ORDER=7" },
    late = { build = "plain", prefix = "env PERIGEE_CUDA_LATE=3" },
    guard = { build = "plain", prefix = "env PERIGEE_CUDA_GUARD=1" },
    races = { build = "races", prefix = "setarch -R env TSAN_OPTIONS=exitcode=66" },
    bounds = { build = "bounds", prefix = "env ASAN_OPTIONS=detect_leaks=0:exitcode=66 UBSAN_OPTIONS=exitcode=66" },
}

local function sorted(t)
    local names = {}
    for name in pairs(t) do names[#names + 1] = name end
    table.sort(names)
    return names
end
program.sorted = sorted

--- Compiles a .cu file once for each build, into a folder that `remove` deletes.
---@param source string
---@return table compiled with run(mode, arguments) -> status, output; and remove()
function program.compile(source)
    local folder = shell.temporary_folder()
    local archive = quote(shell.build .. "/libcuda_on_cpu.a")
    local commands = {}
    for _, name in ipairs(sorted(builds)) do
        commands[#commands + 1] = ("env -u LD_PRELOAD g++ %s %s -x c++ %s -x none %s -lpthread -o %s"):format(FLAGS,
            builds[name], source, archive, quote(folder .. "/" .. name))
    end
    shell.must(table.concat(commands, " && "))
    local compiled = {}
    function compiled.run(mode, arguments)
        local m = program.modes[mode]
        local made = quote(folder .. "/" .. m.build)
        local unset = "env -u LD_PRELOAD -u PERIGEE_CUDA_POISON -u PERIGEE_CUDA_ORDER -u PERIGEE_CUDA_LATE"
        return shell.run(("%s -u PERIGEE_CUDA_GUARD %s timeout 120 %s %s"):format(unset, m.prefix, made,
            arguments or ""))
    end
    function compiled.remove()
        shell.run("rm -rf " .. quote(folder))
    end
    return compiled
end

return program
