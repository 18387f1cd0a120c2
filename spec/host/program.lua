-- Running build/perigee from a spec: once with everything captured, or in a real terminal (tmux).

local system = require "system"

local M = {}

local build = os.getenv("PERIGEE_BUILD") or "build"

local function absolute(path)
    if path:sub(1, 1) == "/" then
        return path
    end
    local pipe = io.popen("pwd")
    local folder = pipe:read("*l")
    pipe:close()
    return folder .. "/" .. path
end

M.path = absolute(build .. "/perigee")

local file = assert(io.open(M.path, "rb"), M.path .. " is missing: build first, or set PERIGEE_BUILD to a build folder")
file:close()

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end
M.quote = quote

---@param path string
---@return string
function M.read_file(path)
    local f = assert(io.open(path, "rb"))
    local text = f:read("*a")
    f:close()
    return text
end

---@param path string
---@param text string
function M.write_file(path, text)
    local f = assert(io.open(path, "wb"))
    f:write(text)
    f:close()
end

---A new empty folder.
---@return string
function M.temporary_folder()
    local path = os.tmpname()
    os.remove(path)
    assert(os.execute("mkdir " .. quote(path)) == 0)
    return path
end

---@param path string
function M.remove_folder(path)
    assert(path:sub(1, 5) == "/tmp/")
    os.execute("rm -rf " .. quote(path))
end

---Runs a shell command line. `stdin` is a text; without it standard input is empty.
---@param command string
---@param stdin? string
---@return string stdout, string stderr, integer status
function M.shell(command, stdin)
    local folder = M.temporary_folder()
    M.write_file(folder .. "/in", stdin or "")
    local script = ("(%s) <%s >%s 2>%s; echo $? >%s"):format(command, quote(folder .. "/in"), quote(folder .. "/out"),
        quote(folder .. "/err"), quote(folder .. "/status"))
    os.execute(script)
    local out, err = M.read_file(folder .. "/out"), M.read_file(folder .. "/err")
    local status = tonumber(M.read_file(folder .. "/status"))
    M.remove_folder(folder)
    return out, err, status
end

---Runs perigee with the arguments; a run that hangs ends after a minute with status 124.
---@param arguments string|string[]  a string is taken as shell text
---@param stdin? string
---@return string stdout, string stderr, integer status
function M.run(arguments, stdin)
    return M.run_program(M.path, arguments, stdin)
end

---As run, for another program.
function M.run_program(program, arguments, stdin)
    if type(arguments) == "table" then
        local quoted = {}
        for i, argument in ipairs(arguments) do
            quoted[i] = quote(argument)
        end
        arguments = table.concat(quoted, " ")
    end
    return M.shell(("env -u LUA_INIT timeout 60 %s %s"):format(quote(program), arguments), stdin)
end

-- Lua code for a script under test: from here on the process gets a SIGINT at every 4 ms of its own processor time, so
-- that on a busy machine too each is taken before the next one comes. press_every(0) ends it.
M.press_often = [[
    local ffi = require "ffi"
    ffi.cdef "typedef struct { void *value; int signal, notify; char rest[48]; } press_event;"
    ffi.cdef "typedef struct { long interval, interval_ns, first, first_ns; } press_time;"
    ffi.cdef "int timer_create(int, press_event *, void **); int timer_settime(void *, int, press_time *, void *);"
    local timer = ffi.new("void *[1]")
    local event = ffi.new("press_event")
    event.signal = 2
    assert(ffi.C.timer_create(2, event, timer) == 0)
    function press_every(ns)
        assert(ffi.C.timer_settime(timer[0], 0, ffi.new("press_time", {0, ns, 0, ns}), nil) == 0)
    end
    press_every(4e6)
]]

-- ---- a terminal ----

local LIMIT = 60        -- seconds to wait for a text that never comes; a text that comes is seen at once

---@class Terminal
local Terminal = {}
Terminal.__index = Terminal

---Opens a terminal of 100 x 50 characters in which the shell command runs; its exit status is printed behind it, as
---"exit status N".
---@param command string
---@param environment? table<string, string>
---@return Terminal
function M.terminal(command, environment)
    local self = setmetatable({}, Terminal)
    self.folder = M.temporary_folder()
    self.socket = self.folder .. "/tmux"
    local words = {"env"}
    local variables = {PERIGEE_HISTORY = self.folder .. "/history", INPUTRC = "/dev/null", HOME = self.folder,
        LANG = "C.UTF-8"}
    for name, value in pairs(environment or {}) do
        variables[name] = value
    end
    for name, value in pairs(variables) do
        words[#words + 1] = name .. "=" .. quote(value)
    end
    -- Ctrl-C goes to the shell too, which must live to tell the status.
    words[#words + 1] = ("sh -c %s"):format(quote(("trap : INT; %s; echo exit status $?; sleep 1000"):format(command)))
    -- Without the sanitizers' libraries: they are for what is under test, not for tmux.
    local tmux = "env -u LD_PRELOAD -u TMUX LANG=C.UTF-8 tmux -S %s -f /dev/null new-session -d -x 100 -y 50 %s"
    local status = os.execute(tmux:format(quote(self.socket), quote(table.concat(words, " "))))
    assert(status == 0, "tmux does not start: is it installed?")
    return self
end

function Terminal:tmux(arguments)
    local command = "exec env -u LD_PRELOAD -u TMUX LANG=C.UTF-8 tmux -S %s %s 2>&1"
    local pipe = io.popen(command:format(quote(self.socket), arguments))
    local text = pipe:read("*a")
    pipe:close()
    return text
end

-- To tmux a ";" at the end of an argument ends the command.
local function escaped(text)
    return quote((text:gsub(";$", "\\;")))
end

---Types a text, without Enter.
---@param text string
function Terminal:type(text)
    self:tmux("send-keys -l -- " .. escaped(text))
end

---Presses keys by tmux's names: "Enter", "Tab", "Up", "C-c", "C-d".
function Terminal:press(...)
    self:tmux("send-keys " .. table.concat({...}, " "))
end

---Types a line and Enter.
---@param text string
function Terminal:line(text)
    self:tmux("send-keys -l -- " .. escaped(text) .. " \\; send-keys Enter")
end

---All that stands and stood on the screen, between two newlines, without blanks at the end.
---@return string
function Terminal:screen()
    local text = self:tmux("capture-pane -p -J -S -")
    return "\n" .. text:gsub("%s+$", "") .. "\n"
end

---Waits until the screen matches the Lua pattern; an error with the screen otherwise.
---@param pattern string
---@return string screen
function Terminal:wait_for(pattern)
    local deadline = system.monotime() + LIMIT
    while true do
        local screen = self:screen()
        if screen:find(pattern) then
            return screen
        elseif system.monotime() > deadline then
            error(("the terminal does not show %q but:\n%s"):format(pattern, screen), 2)
        end
        system.sleep(0.03)
    end
end

---Ends what runs in the terminal.
function Terminal:close()
    self:tmux("kill-server")
    M.remove_folder(self.folder)
end

return M
