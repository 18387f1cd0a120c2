-- The pause: Ctrl-C in a script run with -i stops it where it stands and opens a REPL there. Locals and upvalues of the
-- frame can be read and set by their names; "cont" goes on as if nothing had been, "stop" raises "interrupted" there.

local loop = require "perigee.repl.loop"
local show = require "perigee.repl.show"
local trace = require "perigee.repl.trace"
local who = require "perigee.repl.who"

local M = {}

local HELP = [[
The script is paused. Lines see the locals of the frame; x = 5 sets the local, upvalue or global x.
  cont (or Ctrl-D)   go on
  stop               raise the error "interrupted" where the script stands
  where              the frames; the marked one is looked at
  up, down           look at the caller, and back
  locals             locals and upvalues of the frame
  who, trace, time on, time off   as in the REPL
Names made here with "local" live for one line.]]

-- Levels change with every call, so a frame is named by its height: how many frames there are below it on the thread's
-- stack.
--
-- level_of answers for the function that calls it. The paused thread is the running one, except where a line typed in
-- the pause runs a coroutine; then level_of is not on its stack.
local function level_of(state, height)
    local count = 0
    while debug.getinfo(state.thread, count, "l") do
        count = count + 1
    end
    if coroutine.running() == state.running then
        count = count - 1
    end
    return count - height
end

-- Index of the innermost local of that name.
local function get_local(state, height, name)
    local level = level_of(state, height)
    local found, value, i = nil, nil, 1
    while true do
        local k, v = debug.getlocal(state.thread, level, i)
        if not k then
            break
        end
        if k == name then
            found, value = i, v
        end
        i = i + 1
    end
    return found, value
end

local function set_local(state, height, i, value)
    local level = level_of(state, height)
    debug.setlocal(state.thread, level, i, value)
end

local function list_locals(state, height)
    local level = level_of(state, height)
    local list, i = {}, 1
    while true do
        local k, v = debug.getlocal(state.thread, level, i)
        if not k then
            return list
        end
        if k:sub(1, 1) ~= "(" then
            list[#list + 1] = {k, v}
        end
        i = i + 1
    end
end

local function get_upvalue(func, name)
    local i = 1
    while true do
        local k, v = debug.getupvalue(func, i)
        if not k then
            return nil
        elseif k == name then
            return i, v
        end
        i = i + 1
    end
end

-- Frames of the script, innermost first. Above them stands the pause itself: this function, M.run, and the C function
-- that the hook called.
local function list_frames(state)
    local total = level_of(state, 0)
    local frames, level = {}, 4
    while true do
        local info = debug.getinfo(state.thread, level, "Snlf")
        if not info then
            return frames
        end
        if info.what ~= "C" then
            frames[#frames + 1] = {height = total - level, info = info, func = info.func}
        end
        level = level + 1
    end
end

-- A table that reads and writes the names a frame sees: its locals, its upvalues, then what `outer` has.
local function frame_environment(state)
    return setmetatable({}, {
        __index = function(_, name)
            local frame = state.open and state.frames[state.at]
            if frame then
                local i, value = get_local(state, frame.height, name)
                if i then
                    return value
                end
                i, value = get_upvalue(frame.func, name)
                if i then
                    return value
                end
            end
            local value = state.globals[name]
            if value == nil then
                return state.session[name]
            end
            return value
        end,
        __newindex = function(_, name, value)
            local frame = state.open and state.frames[state.at]
            if frame then
                local i = get_local(state, frame.height, name)
                if i then
                    set_local(state, frame.height, i, value)
                    state.changed = true
                    return
                end
                i = get_upvalue(frame.func, name)
                if i then
                    debug.setupvalue(frame.func, i, value)
                    state.changed = true
                    return
                end
            end
            state.globals[name] = value
        end,
    })
end

local function source_line(info)
    local path = info.source:match("^@(.*)$")
    local file = path and io.open(path, "r")
    if not file then
        return nil
    end
    local number = 0
    for line in file:lines() do
        number = number + 1
        if number == info.currentline then
            file:close()
            return (line:gsub("^%s+", ""))
        end
    end
    file:close()
end

local function print_place(frame)
    loop.write(trace.describe(frame.info))
    local line = source_line(frame.info)
    if line then
        loop.write("    " .. line)
    end
end

local function frame_variables(state)
    local frame = state.frames[state.at]
    local list = frame and list_locals(state, frame.height) or {}
    local i = 1
    while frame do
        local name, value = debug.getupvalue(frame.func, i)
        if not name then
            break
        end
        list[#list + 1] = {name, value, true}
        i = i + 1
    end
    return list
end

local function make_commands(state)
    local commands = {}

    function commands.cont()
        return "leave", false
    end

    function commands.stop()
        return "leave", true
    end
    commands.exit, commands.quit = commands.stop, commands.stop

    function commands.where()
        for i, frame in ipairs(state.frames) do
            loop.write((i == state.at and "> " or "  ") .. trace.describe(frame.info))
        end
    end

    local function move(by)
        local at = state.at + by
        if not state.frames[at] then
            loop.write(by > 0 and "this is the outermost frame" or "this is the innermost frame")
            return
        end
        state.at = at
        print_place(state.frames[at])
    end

    function commands.up()
        move(1)
    end

    function commands.down()
        move(-1)
    end

    commands["locals"] = function()
        for _, variable in ipairs(frame_variables(state)) do
            loop.write(("%s = %s%s"):format(variable[1], show.inline(variable[2]), variable[3] and "  (upvalue)" or ""))
        end
    end

    function commands.help()
        loop.write(HELP)
    end

    function commands.who()
        loop.write(who.text(state.globals))
    end

    return commands
end

-- Perigee if the script has loaded it. While it is being loaded, something else stands there.
local function loaded_perigee()
    local pg = package.loaded["perigee"]
    return type(pg) == "table" and pg or nil
end

-- The REPL's names, behind the script's.
local function make_session(state)
    local session = {}
    function session.who()
        loop.write(who.text(state.globals))
    end
    local pg = loaded_perigee()
    if pg then
        session.pg = pg
        setmetatable(session, {__index = function(_, name)
            if name == "nn" or name == "help" then
                return pg[name]
            elseif name == "F" then
                return pg.nn.functional
            end
        end})
    end
    return session
end

---Pauses the running script: opens the REPL and returns when the user leaves it.
---@param thread thread  that the interrupt hit
---@return boolean stop  true: the interrupt is to raise its error
function M.run(thread)
    local state = {thread = thread, running = coroutine.running(), open = true, at = 1}
    state.frames = list_frames(state)
    for i, frame in ipairs(state.frames) do
        if not trace.is_own(frame.info) then
            state.at = i
            break
        end
    end
    local frame = state.frames[state.at]
    state.globals = frame and getfenv(frame.func) or _G
    state.session = make_session(state)

    io.stdout:write("\npaused; help tells what can be done here\n")
    if frame then
        print_place(frame)
    end
    local options = {
        prompt = "pause> ",
        commands = make_commands(state),
        environment = frame_environment(state),
        extra_names = function()
            local names = {}
            for _, variable in ipairs(frame_variables(state)) do
                names[variable[1]] = true
            end
            for name in next, state.globals do
                if type(name) == "string" then
                    names[name] = true
                end
            end
            for name in next, state.session do
                names[name] = true
            end
            return names
        end,
        set_last = function(value)
            state.session._ = value
        end,
    }
    -- The script may stand inside a call of an op, halfway through filling what it hands to the engine.
    local pg = loaded_perigee()
    local stop
    if pg then
        stop = pg._protect(loop.run, options)
    else
        stop = loop.run(options)
    end
    state.open = false      -- functions made in the pause may live on: the frame does not
    if state.changed then
        jit.flush()         -- compiled code holds the values of upvalues that no code assigns to
    end
    return stop == true
end

return M
