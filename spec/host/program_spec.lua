-- The program's options, arguments, input and exit codes, most of them beside luajit's own.

local program = require "spec.host.program"

local run, quote = program.run, program.quote

-- The program's name is the one thing in which messages may differ.
local function same_name(text)
    return (text:gsub("luajit", "perigee"):gsub(quote(program.path), "perigee"):gsub("/%S*/perigee", "perigee"))
end

describe("the program", function()
    local folder, script

    setup(function()
        folder = program.temporary_folder()
        script = folder .. "/script.lua"
        program.write_file(script, [[
            print("args", ...)
            for i = -10, 10 do
                if arg[i] and i >= 0 then print(i, arg[i]) end
            end
            local before = 0
            while arg[before - 1] do before = before - 1 end
            print("before", before)
        ]])
        program.write_file(folder .. "/answer.lua", "print('module', ...) return 42")
        program.write_file(folder .. "/fails.lua", "local function inner() error('boo') end\ninner()\n")
        program.write_file(folder .. "/syntax.lua", "x = = 1\n")
    end)

    teardown(function()
        program.remove_folder(folder)
    end)

    -- Arguments (shell text; SCRIPT and FOLDER stand for the files above) and standard input.
    local cases = {
        {"SCRIPT"},
        {"SCRIPT a 'b c' -e ''"},
        {"-- SCRIPT a"},
        {"-e 'print(1)' -e 'print(arg[0], arg[-1], arg[-2])'"},
        {"-e 'print(1)' SCRIPT x"},
        {"'-eprint(2)'"},
        {"-", "print('from stdin', ...) print(arg[0])"},
        {"- a b", "print('from stdin', ...) print(arg[0], arg[1], arg[2])"},
        {"", "print('plain stdin', arg[0] ~= nil)"},
        {"-e 'package.path = \"FOLDER/?.lua\"' -l answer -e 'print(package.loaded.answer)'"},
        {"-l no.such.module"},
        {"-e 'os.exit(0)'"},
        {"-e 'os.exit(7)'"},
        {"-e 'os.exit(true)'"},
        {"-e 'os.exit(false)'"},
        {"-e 'error(\"boo\")'"},
        {"-e 'error(\"boo\", 0)'"},
        {"-e 'error({})'"},
        {"-e 'error()'"},
        {"-e 'error(setmetatable({}, {__tostring = function() return \"an object\" end}))'"},
        {"-e 'x = = 1'"},
        {"-e 'print(1)' -e 'error(\"stops here\")' -e 'print(2)'"},
        {"FOLDER/fails.lua"},
        {"FOLDER/syntax.lua"},
        {"FOLDER/missing.lua"},
        {"-- -"},
        {"-j off -e 'print(jit.status())'"},
        {"-joff -e 'print((jit.status()))'"},
        {"-O3 -e 'print(1)'"},
        {"-E -e 'print(1)'"},
        {"-i", "print(6 * 7)\n"},
    }

    for _, case in ipairs(cases) do
        local name = ("perigee %s%s"):format(case[1], case[2] and " <<< " .. case[2]:gsub("%s+$", "") or "")
        it("does as luajit does: " .. name, function()
            local arguments = case[1]:gsub("SCRIPT", script):gsub("FOLDER", folder)
            local out, err, status = run(arguments, case[2])
            local expected_out, expected_err, expected_status = program.run_program("luajit", arguments, case[2])
            assert.are.equal(expected_status, status)
            if not case[1]:find("^%-i") then
                assert.are.equal(same_name(expected_out), same_name(out))
                -- Tracebacks end in the program's own frames: addresses differ, and so may their number.
                local first, expected_first = same_name(err):match("^[^\n]*"), same_name(expected_err):match("^[^\n]*")
                assert.are.equal(expected_first, first)
                assert.are.equal(expected_err:find("stack traceback", 1, true) ~= nil,
                    err:find("stack traceback", 1, true) ~= nil)
            else
                assert.truthy(out:find("42", 1, true))
            end
        end)
    end

    it("prints an error with the program's name, the place and a traceback", function()
        local out, err, status = run({folder .. "/fails.lua"})
        assert.are.equal("", out)
        assert.are.equal(1, status)
        assert.truthy(err:find("^perigee: " .. folder:gsub("%W", "%%%0") .. "/fails.lua:1: boo\nstack traceback:"))
        assert.truthy(err:find("fails.lua:1: in function 'inner'", 1, true))
    end)

    it("ends with status 1 after an error in standard input, and after wrong compiler options", function()
        local _, err, status = run("", "error('in stdin')")
        assert.are.equal(1, status)
        assert.truthy(err:find("^perigee: stdin:1: in stdin\n"))
        _, err, status = run("-j nonsense")
        assert.are.equal(1, status)
        assert.truthy(err:find("module 'jit.nonsense' not found", 1, true))
        _, err, status = run("-Onosuch -e 'print(1)'")
        assert.are.equal(1, status)
        assert.truthy(err:find("unknown or malformed optimization flag 'nosuch'", 1, true))
    end)

    it("tells its version and LuaJIT's", function()
        for _, option in ipairs {"--version", "-v"} do
            local out, err, status = run({option})
            assert.truthy(out:find("^Perigee %d+%.%d+%.%d+ %(LuaJIT 2%.1"))
            assert.are.equal("", err)
            assert.are.equal(0, status)
        end
    end)

    it("explains itself with --help", function()
        for _, option in ipairs {"--help", "-h"} do
            local out, err, status = run({option})
            for _, word in ipairs {"usage:", "-e code", "-l module", "-i ", "--version", "--help"} do
                assert.truthy(out:find(word, 1, true), word)
            end
            assert.are.equal("", err)
            assert.are.equal(0, status)
        end
    end)

    it("answers a wrong option with the usage and status 1", function()
        for _, arguments in ipairs {"--nonsense", "-x", "-e", "-l", "-ix", "-vx"} do
            local out, err, status = run(arguments)
            assert.are.equal("", out)
            assert.truthy(err:find("usage: perigee", 1, true), arguments)
            assert.are.equal(1, status)
        end
    end)

    it("runs LUA_INIT, and not with -E", function()
        local run_with = function(options)
            local command = "LUA_INIT='print(\"init\")' %s %s -e 'print(1)'"
            return program.shell(command:format(quote(program.path), options))
        end
        assert.are.equal("init\n1\n", (run_with("")))
        assert.are.equal("1\n", (run_with("-E")))
    end)

    it("makes no globals of its own for a script", function()
        local code = "local names = {} for name in pairs(_G) do names[#names + 1] = name end table.sort(names) " ..
            "print(table.concat(names, ' '))"
        local expected = program.run_program("luajit", {"-e", code})
        assert.are.equal(expected, (run({"-e", code})))
    end)

    it("finds Perigee's Lua files from any folder, and through a link", function()
        local code = "assert(package.searchpath('perigee.repl', package.path))"
        local _, err, status = program.shell(("cd / && %s -e %s"):format(quote(program.path), quote(code)))
        assert.are.equal("", err)
        assert.are.equal(0, status)
        assert(os.execute(("ln -s %s %s"):format(quote(program.path), quote(folder .. "/link"))) == 0)
        _, err, status = program.run_program(folder .. "/link", {"-e", code})
        assert.are.equal("", err)
        assert.are.equal(0, status)
    end)

    it("tells the library where it runs", function()
        local out = run({"-e", "local h = require 'perigee.host' print(h.exe, h.version, type(h.interrupt))"})
        assert.truthy(out:find("^" .. program.path:gsub("%W", "%%%0") .. "\t%d+%.%d+%.%d+\tfunction\n$"))
    end)

    it("raises LuaJIT's limits, so that 3,000 loops stay compiled", function()
        local out, err = run({"-e", [[
            local code = {"local x = 0"}
            for i = 1, 3000 do code[#code + 1] = ("do local x = 0 for i = 1, 100 do x = x + i end end") end
            local parts = {}
            for p = 0, 29 do parts[p + 1] = assert(loadstring(table.concat(code, "\n", p * 100 + 2, p * 100 + 101))) end
            local flushes = 0
            jit.attach(function(what) if what == "flush" then flushes = flushes + 1 end end, "trace")
            for _, part in ipairs(parts) do part() end
            print("flushes", flushes)
        ]]})
        assert.are.equal("", err)
        assert.are.equal("flushes\t0\n", out)
    end)

    describe("under Ctrl-C", function()
        local interrupt_soon = [[
            local ffi = require "ffi"
            ffi.cdef "int getpid(void);"
            os.execute(("(sleep 0.4; kill -INT %d) >/dev/null 2>&1 &"):format(ffi.C.getpid()))
        ]]

        local function expect_interrupted(body)
            local out, err, status = run({"-e", interrupt_soon .. body})
            assert.are.equal(130, status, err)
            assert.are.equal("", out)
            assert.truthy(err:find("^perigee: [^\n]*interrupted\nstack traceback:"), err)
        end

        it("stops a compiled loop", function()
            expect_interrupted("local x = 0 while true do x = x + 1 end")
        end)

        it("stops a compiled loop of calls", function()
            expect_interrupted("local function f(x) return math.sin(x) end local x = 0 while true do x = x + f(x) end")
        end)

        it("stops a loop that is not compiled", function()
            expect_interrupted("jit.off() local x = 0 repeat x = x + 1 until x < 0")
        end)

        it("stops a loop in a coroutine", function()
            expect_interrupted("coroutine.wrap(function() while true do end end)()")
        end)

        it("stops a loop whose finalizers run all the time", function()
            expect_interrupted([[
                collectgarbage("setpause", 50) collectgarbage("setstepmul", 1000)
                local ffi = require "ffi"
                local t = ffi.typeof("struct { int x[16]; }")
                while true do ffi.gc(t(), function() for i = 1, 100 do end end) end
            ]])
        end)

        it("stops a loop after a profile of the script's own", function()
            expect_interrupted([[
                local profile = require "jit.profile"
                profile.start("li1", function() end)
                local x = 0
                for i = 1, 1e6 do x = x + i end
                profile.stop()
                while true do x = x + 1 end
            ]])
        end)

        it("leaves a profile of the script's own at work", function()
            local out, err = run({"-e", [[
                local samples, x = 0, 0
                require "jit.profile".start("li1", function(_, n) samples = samples + n end)
                for i = 1, 1e12 do
                    x = x + i
                    if samples > 20 then break end
                end
                print(samples > 20)
            ]]})
            assert.are.equal("true\n", out, err)
        end)

        it("stops a loop while the script profiles itself", function()
            expect_interrupted([[
                require "jit.profile".start("li1", function() end)
                local x = 0
                while true do x = x + 1 end
            ]])
        end)

        it("takes a press that is sent twice for one", function()
            local out, err, status = run({"-e", [[
                local ffi = require "ffi"
                ffi.cdef "int getpid(void); int kill(int, int); int usleep(unsigned);"
                local me = ffi.C.getpid()
                os.execute(("(sleep 0.4; kill -INT %d %d) >/dev/null 2>&1 &"):format(me, me))
                while true do end
            ]]})
            assert.are.equal(130, status)
            assert.are.equal("", out)
            assert.truthy(err:find("^perigee: interrupted\nstack traceback:"), err)
        end)

        it("changes nothing in what a script computes between pauses", function()
            program.write_file(folder .. "/pauses.lua", [[
                local host, ffi = require "perigee.host", require "ffi"
                local pauses = 0
                if arg[1] == "pause" then
                    host.on_pause(function(thread)
                        pauses = pauses + 1
                        debug.getlocal(thread, 2, 1)
                        if pauses % 10 == 0 then jit.flush() end
                        return false
                    end)
                    host.set_mode("pause")
                    dofile(arg[2])
                end
                local struct = ffi.typeof("struct { double x[2]; }")
                local state = 7
                local function random()
                    state = (state * 1103515245 + 12345) % 2147483648
                    return state / 2147483648
                end
                local function work()
                    local sum, kept = 0, {}
                    for i = 1, 10000 do
                        local t = {random(), name = "n" .. i}
                        kept[i % 100] = t
                        local c = ffi.gc(struct(), function(p) p.x[0] = 0 end)
                        c.x[1] = t[1]
                        sum = sum + c.x[1] * #t.name
                        if not pcall(function() if i % 50 == 0 then error("x") end end) then sum = sum + 1 end
                    end
                    local co = coroutine.wrap(function() for k = 1, 500 do coroutine.yield(k * random()) end end)
                    for _ = 1, 500 do sum = sum + co() end
                    local list = {}
                    for k = 1, 1000 do list[k] = random() end
                    table.sort(list, function(a, b) return a < b end)
                    for k = 1, 1000 do sum = sum + list[k] * k end
                    for k = 1, 1e6 do sum = sum + k % 7 end
                    return sum
                end
                local sum = 0
                for _ = 1, 40 do sum = sum + work() end
                if press_every then press_every(0) end
                print(("%.17g"):format(sum))
                io.stderr:write(pauses)
            ]])
            program.write_file(folder .. "/press.lua", program.press_often)
            local expected = run({folder .. "/pauses.lua"})
            local out, pauses, status = run({folder .. "/pauses.lua", "pause", folder .. "/press.lua"})
            assert.are.equal(0, status, pauses)
            assert.truthy(tonumber(expected))
            assert.are.equal(expected, out)
            assert.truthy(tonumber(pauses) >= 5, pauses)
        end)

        it("is an error that pcall sees", function()
            local out, err, status = run({"-e", interrupt_soon .. [[
                local ok, message = pcall(function() while true do end end)
                print(ok, message)
                os.exit(3)
            ]]})
            assert.are.equal("", err)
            assert.are.equal("false\tinterrupted\n", out)
            assert.are.equal(3, status)
        end)

        it("leaves another error's status at 1", function()
            local _, _, status = run({"-e", interrupt_soon .. [[
                pcall(function() while true do end end)
                error("something else")
            ]]})
            assert.are.equal(1, status)
        end)

        it("puts a debug hook of the script's back", function()
            local out, _, status = run({"-e", interrupt_soon .. [[
                local function hook() end
                jit.off()
                debug.sethook(hook, "l")
                pcall(function() while true do end end)
                print(debug.gethook() == hook)
            ]]})
            assert.are.equal("true\n", out)
            assert.are.equal(0, status)
        end)

        it("stays ignored where it was ignored at the start, as under nohup", function()
            local out, _, status = program.shell(("trap '' INT; %s -e %s"):format(quote(program.path), quote([[
                local ffi = require "ffi"
                ffi.cdef "int getpid(void); int kill(int, int);"
                ffi.C.kill(ffi.C.getpid(), 2)
                local x = 0
                for i = 1, 1e7 do x = x + i end
                print("went on")
            ]])))
            assert.are.equal("went on\n", out)
            assert.are.equal(0, status)
        end)
    end)

    describe("with -i and no terminal", function()
        it("reads lines, goes on after errors, and ends with the input", function()
            local out, err, status = run("-i", "x = 20\nerror('boo')\nx + 1\n")
            assert.truthy(out:find("21", 1, true))
            assert.truthy(err:find("stdin:1: boo", 1, true))
            assert.are.equal(0, status)
        end)

        it("runs the script first and keeps its globals", function()
            program.write_file(folder .. "/globals.lua", "made_here = 41\n")
            local out = run({"-i", folder .. "/globals.lua"}, "made_here + 1\n")
            assert.truthy(out:find("42", 1, true))
        end)

        it("opens after an error in the script too, and ends with status 1", function()
            program.write_file(folder .. "/half.lua", "made_here = 41\nerror('boo')\n")
            local out, err, status = run({"-i", folder .. "/half.lua"}, "made_here + 1\n")
            assert.truthy(err:find("half.lua:2: boo", 1, true))
            assert.truthy(out:find("42", 1, true))
            assert.are.equal(1, status)
        end)

        it("tells of an unfinished line at the end of the input", function()
            local _, err, status = run("-i", "for i = 1, 2 do\n")
            assert.truthy(err:find("'end' expected", 1, true), err)
            assert.are.equal(0, status)
        end)
    end)
end)
