-- The REPL and the pause, in a real terminal (tmux). The expected texts differ from what is typed, which the terminal
-- shows too. The screen's text stands between two newlines, so "\n>\n$" is: the prompt is last.

local program = require "spec.host.program"

local perigee = program.quote(program.path)

describe("the REPL", function()
    local terminal

    local function open(arguments, environment)
        terminal = program.terminal(perigee .. " " .. (arguments or ""), environment)
        return terminal
    end

    after_each(function()
        if terminal then
            terminal:close()
            terminal = nil
        end
    end)

    -- What needs no editing, with each editor that may be there. "none" is always there.
    for _, editor in ipairs {"readline", "libedit", "none"} do
        describe("with " .. editor, function()
            local t

            -- Opens the REPL; false, and the test is skipped, where the editor is not installed.
            local function start(arguments, environment)
                environment = environment or {}
                environment.PERIGEE_LINE_EDITOR = editor
                t = open(arguments, environment)
                t:wait_for("\n>\n$")
                t:line("('editor'):upper(), require('perigee.host').editor()")
                local screen = t:wait_for("EDITOR%s+%l+\n")
                local found = screen:match("EDITOR%s+(%l+)\n")
                if found ~= editor then
                    assert.are.equal("none", found)
                    pending(editor .. " is not installed")
                    return false
                end
                return true
            end

            it("prints values, several values, and none for statements", function()
                if not start() then return end
                t:line("6 * 7")
                t:wait_for("\n42\n")
                t:line("('a'):rep(3), nil, 1 == 1")
                t:wait_for("\naaa%s+nil%s+true\n")
                t:line("x = 5 * 5")
                t:line("x + 1")
                t:wait_for("> x = 5 %* 5\n> x %+ 1\n26\n")
                t:line("= x * 2")
                t:wait_for("\n50\n")
            end)

            it("prints tables one level deep", function()
                if not start() then return end
                t:line("{1, 'two', {3, 4}, key = {a = 1}, ['two words'] = true}")
                t:wait_for('\n{1, "two", {3, 4}, key = {a = 1}, %["two words"%] = true}\n')
                t:line("setmetatable({}, {__tostring = function() return 'I am ' .. 'myself' end})")
                t:wait_for("\nI am myself\n")
            end)

            it("mutes a line with ; and keeps the last value in _", function()
                if not start() then return end
                t:line("123 * 3;")
                t:line("_ + 1")
                t:wait_for("> 123 %* 3;\n> _ %+ 1\n370\n")
                t:line("nil")
                t:line("_ + 2")
                t:wait_for("\n372\n")
            end)

            it("reads on where a line is not whole", function()
                if not start() then return end
                t:line("for i = 1, 3 do")
                t:line("  io.write(i * 11, ' ')")
                t:line("end print()")
                t:wait_for("\n11 22 33 *\n")
                t:line("{1,")
                t:line("2 + 3}")
                t:wait_for("\n{1, 5}\n")
                t:line("('x'):rep(")
                t:line("4)")
                t:wait_for("\nxxxx\n")
            end)

            it("shows an error with the user's frames, and goes on", function()
                if not start() then return end
                t:line("function inner() error('bo' .. 'om') end")
                t:line("function outer() inner() end")
                t:line("outer()")
                t:wait_for("\nstdin:1: boom\n  stdin:1: in function 'inner'\n  stdin:1: in function 'outer'\n>\n$")
                t:line("error({code = 40 + 2})")
                t:wait_for("\nerror: {code = 42}\n>\n$")
                t:line("x = = 1")
                t:wait_for("\nstdin:1: unexpected symbol near '='\n>\n$")
                t:line('"unfinished')
                t:wait_for("\nstdin:1: unfinished string near")
                t:line("local function f() return 1 + f() end f()")
                t:wait_for("stack overflow")
                t:line("6 * 7")
                t:wait_for("\n42\n>\n$")
                t:line("trace")
                t:wait_for("stack traceback:")
            end)

            it("stops a compiled loop at Ctrl-C, again and again", function()
                if not start() then return end
                for i = 1, 3 do
                    t:line(("print('lo' .. 'op' .. %d) local x = 0 while true do x = x + 1 end"):format(i))
                    t:wait_for(("\nloop%d\n"):format(i))
                    t:press("C-c")
                    t:wait_for(("\nloop%d\n%%^?C?interrupted\n>\n$"):format(i))
                end
                t:line("6 * 7")
                t:wait_for("\n42\n>\n$")
            end)

            it("stops an expression whose printing goes on and on", function()
                if not start() then return end
                t:line("setmetatable({}, {__tostring = function() io.write('be', 'gun\\n') while true do end end})")
                t:wait_for("\nbegun\n")
                t:press("C-c")
                t:wait_for("interrupted\n.*>\n$")
            end)

            it("drops a line, and an unfinished chunk, at Ctrl-C", function()
                if not start() then return end
                t:type("this is not Lua")
                t:wait_for("not Lua")
                t:press("C-c")
                t:wait_for("\n>\n$")
                t:line("3 * 3")
                t:wait_for("\n9\n>\n$")
                t:line("while true do")
                t:wait_for("\n>>\n$")
                t:press("C-c")
                t:wait_for("\n>\n$")
                t:line("4 * 4")
                t:wait_for("\n16\n>\n$")
            end)

            it("leaves at Ctrl-D, exit and os.exit", function()
                if not start() then return end
                t:press("C-d")
                t:wait_for("\nexit status 0\n")
                t:close()
                assert(start())
                t:line("exit")
                t:wait_for("\nexit status 0\n")
                t:close()
                assert(start())
                t:line("os.exit(3)")
                t:wait_for("\nexit status 3\n")
            end)

            it("lists the user's globals", function()
                if not start() then return end
                t:line("who")
                t:wait_for("nothing yet")
                t:line("words, number, fun = 'abc' .. 'def', 6 * 7, function() end")
                t:line("who()")
                t:wait_for('\nwords +string +"abcdef" +6 B\n')
                t:wait_for("\nnumber +number +42 *\n")
                t:wait_for("\nfun +function +stdin:1 *\n")
            end)

            it("times lines on request", function()
                if not start() then return end
                t:line("time on")
                t:line("6 * 7")
                t:wait_for("\n42\n%([%d.e-]+ ms%)\n")
                t:line("time off")
                t:line("6 * 8")
                t:wait_for("\n48\n>\n$")
            end)

            it("explains itself", function()
                if not start() then return end
                t:line("help")
                t:wait_for("Ctrl%-D *leave")
            end)

            it("keeps a history file", function()
                if not start() then return end
                t:line("'rem' .. 'ember'")
                t:wait_for("\nremember\n")
                local text = program.read_file(t.folder .. "/history")
                assert.truthy(text:find("'rem' .. 'ember'\n", 1, true))
            end)

            it("reads lines that are long", function()
                if not start() then return end
                t:line("#'" .. ("x"):rep(3000) .. "' + 1")
                t:wait_for("\n3001\n")
            end)

            it("pauses a script run with -i, changes its locals and upvalues, and goes on", function()
                local folder = program.temporary_folder()
                local script = folder .. "/train.lua"
                program.write_file(script, [[
                    local rate = 0.5
                    local function step(i)
                        local loss = rate * i
                        for k = 1, 1e4 do loss = loss + k * 1e-9 end
                        return loss
                    end
                    local function train(steps)
                        local total, halt = 0, false
                        print("training")
                        for i = 1, steps do
                            total = total + step(i)
                            if halt or rate == 7 then
                                print("halted", halt, rate)
                                return total
                            end
                        end
                    end
                    result = train(1e12)
                    result = train(1e12)
                    train(1e12)
                ]])
                terminal = program.terminal(perigee .. " -i " .. script, {PERIGEE_LINE_EDITOR = editor})
                t = terminal
                t:wait_for("\ntraining\n")
                t:press("C-c")
                t:wait_for("paused.*pause>\n$")
                t:line("where")
                t:wait_for("  %S*train.lua:%d+: in main chunk\npause>\n$")
                -- Up to the frame of train, wherever in it or in step the script was caught.
                t:line("while not pcall(function() assert(steps) end) do break end")
                t:line("steps == nil and 'in' .. ' step' or 'in' .. ' train'")
                local screen = t:wait_for("\nin %l+\n")
                if screen:find("\nin step\n") then
                    t:line("up")
                    t:wait_for("in function 'train'\n[^\n]*\npause>\n$")
                end
                t:line("('%d steps'):format(steps)")
                t:wait_for("\n1000000000000 steps\n")
                t:line("locals")
                t:wait_for("\nhalt = false\n")
                t:wait_for("\nrate = 0.5  %(upvalue%)\n")
                t:line("made_here = steps / 2")
                t:line("while true do end")
                t:press("C-c")
                t:wait_for("interrupted.*pause>\n$")
                t:line("coroutine.wrap(function() halt = steps > 0 end)()")
                t:line("cont")
                t:wait_for("\nhalted%s+true%s+0.5\n.*training\n$")
                t:press("C-c")
                t:wait_for("training\n.*paused.*pause>\n$")
                t:line("rate = 7")
                t:press("C-d")
                t:wait_for("\nhalted%s+false%s+7\n")
                t:wait_for("\n>\n$")
                t:line("made_here, result > 0")
                t:wait_for("\n500000000000%s+true\n")
                program.remove_folder(folder)
            end)

            it("stops a paused script on request, and opens with its globals", function()
                local folder = program.temporary_folder()
                local script = folder .. "/loop.lua"
                program.write_file(script,
                    "counter = 0\nprint('go' .. 'ing')\nwhile true do counter = counter + 1 end\n")
                terminal = program.terminal(perigee .. " -i " .. script, {PERIGEE_LINE_EDITOR = editor})
                t = terminal
                t:wait_for("\ngoing\n")
                t:press("C-c")
                t:wait_for("loop.lua:3: in main chunk\n%s+while true do.*pause>\n$")
                t:line("counter > 0, counter < 0")
                t:wait_for("\ntrue%s+false\n")
                t:line("stop")
                t:wait_for("\nperigee: interrupted\nstack traceback:.*\n>\n$")
                t:line("counter > 1, 6 * 7")
                t:wait_for("\ntrue%s+42\n")
                t:line("exit")
                t:wait_for("\nexit status 130\n")
                program.remove_folder(folder)
            end)

            it("pauses inside a coroutine", function()
                local folder = program.temporary_folder()
                local script = folder .. "/co.lua"
                program.write_file(script, [[
                    local co = coroutine.wrap(function()
                        local inside = 20
                        print("run" .. "ning")
                        while inside < 100 do end
                        coroutine.yield(inside)
                    end)
                    print("got", co())
                ]])
                terminal = program.terminal(perigee .. " -i " .. script, {PERIGEE_LINE_EDITOR = editor})
                t = terminal
                t:wait_for("\nrunning\n")
                t:press("C-c")
                t:wait_for("pause>\n$")
                t:line("inside + 1")
                t:wait_for("\n21\n")
                t:line("inside = 101")
                t:line("cont")
                t:wait_for("\ngot%s+101\n.*>\n$")
                program.remove_folder(folder)
            end)
        end)
    end

    it("ends a script without -i at Ctrl-C with status 130", function()
        local folder = program.temporary_folder()
        program.write_file(folder .. "/loop.lua", "print('go' .. 'ing')\nwhile true do end\n")
        local t = open(folder .. "/loop.lua")
        t:wait_for("\ngoing\n")
        t:press("C-c")
        t:wait_for("perigee: interrupted\nstack traceback:\n.*loop.lua:2: in main chunk.*\nexit status 130\n")
        program.remove_folder(folder)
    end)

    it("ends a script that is stuck in a C call at the second Ctrl-C", function()
        local t = open([[-e 'print("go" .. "ing") io.read()']])
        t:wait_for("\ngoing\n")
        repeat
            t:press("C-c")
        until t:screen():find("exit status 130\n")
    end)

    it("edits, remembers and completes with the editor that is installed", function()
        local t = open()
        t:wait_for("\n>\n$")
        t:line("('editor'):upper(), require('perigee.host').editor()")
        local screen = t:wait_for("EDITOR%s+%l+\n")
        assert.is_nil(screen:find("EDITOR%s+none"), "no line editor is installed: scripts/setup installs one")
        t:line("model = {layers = {first = {weight = 12, wide = 2}}, forward = function() return 'for' .. 'ward' end}")
        -- a field of a field, by its only continuation
        t:type("model.la")
        t:press("Tab")
        t:wait_for("\n> model%.layers\n$")
        t:type(".first.w")
        t:press("Tab", "Tab")
        t:wait_for("weight +wide *\n")
        t:type("ei")
        t:press("Tab", "Enter")
        t:wait_for("model%.layers%.first%.weight\n12\n")
        -- a method
        t:type("model:")
        t:press("Tab")
        t:wait_for("> model:forward\n$")
        t:line("()")
        t:wait_for("\nforward\n")
        -- a global, and a library's function
        t:type("collectg")
        t:press("Tab")
        t:wait_for("> collectgarbage\n$")
        t:type(" == nil and string.rever")
        t:press("Tab", "Enter")
        t:wait_for("string%.reverse\nfalse\n")
        -- history, with editing: the cursor goes back two characters
        t:line("111 + 222")
        t:wait_for("\n333\n")
        t:press("Up", "Left", "Left", "BSpace")
        t:type("7")
        t:press("Enter")
        t:wait_for("\n833\n")
        -- an error in a field's function does not harm
        t:line("bad = setmetatable({}, {__index = function() error('no') end})")
        t:type("bad.field.")
        t:press("Tab")
        t:press("C-c")
        t:wait_for("\n>\n$")
        t:line("6 * 7")
        t:wait_for("\n42\n>\n$")
    end)

    it("comes back to the line after Ctrl-Z", function()
        local t = program.terminal("bash --norc -i", {PS1 = "shell: "})
        terminal = t
        t:wait_for("shell:\n$")
        t:line(perigee)
        t:wait_for("\n>\n$")
        t:type("6 *")
        t:wait_for("\n> 6 %*\n$")
        t:press("C-z")
        t:wait_for("Stopped.*shell:\n$")
        t:line("fg")
        t:wait_for("\n> 6 %*\n$")
        t:type(" 7")
        t:wait_for("\n> 6 %* 7\n$")
        t:press("Left", "Left", "BSpace")
        t:type("+")
        t:press("Enter")
        t:wait_for("\n> 6 %+ 7 *\n13\n>\n$")
    end)

    it("completes files inside a string", function()
        local t = open()
        program.write_file(t.folder .. "/some-data.v1.txt", "a line in it")
        assert(os.execute("mkdir " .. t.folder .. "/folder.d") == 0)
        t:wait_for("\n>\n$")
        t:type("io.open('" .. t.folder .. "/some-d")
        t:press("Tab")
        t:wait_for("some%-data%.v1%.txt'\n$")
        t:line("):read('*l'):upper()")
        t:wait_for("\nA LINE IN IT\n")
        t:type("io.open('" .. t.folder .. "/fol")
        t:press("Tab")
        t:wait_for("folder%.d/\n$")
    end)

    it("remembers lines of an earlier session", function()
        local t = open("; " .. perigee)
        t:wait_for("\n>\n$")
        t:line("10 * 10 * 7")
        t:wait_for("\n700\n>\n$")
        t:line("exit")
        t:wait_for("exit\n.*\n>\n$")
        t:press("Up", "Up")
        t:type(" + 1")
        t:press("Enter")
        t:wait_for("\n701\n")
    end)
end)
