-- The REPL of the perigee program (engine/host). Words typed alone, like `help`, are its commands; all else is Lua.

local loop = require "perigee.repl.loop"
local who = require "perigee.repl.who"

local M = {}

local HELP = [[
Type Lua: an expression prints its value, "x = ..." makes a global, unfinished lines go on at ">>".
  a ";" at the end prints nothing; _ is the last value
  "local" at the prompt lives for one line: use globals here
  help, help(x)      this text; what is known of a tensor, op or module: help "softmax", help(F.gelu)
  who, who()         your globals: types, shapes, bytes
  time on, time off  tell how long each line takes
  trace              the full traceback of the last error
  Tab                completes names, methods after ":", files inside a string
  Ctrl-C             stops what runs, or drops the line
  exit, Ctrl-D       leave]]

local function print_help()
    loop.write(HELP)
end

local function help(...)
    if select("#", ...) == 0 then
        return print_help()
    end
    return require("perigee").help(...)
end

local function set_global(name, value)
    if rawget(_G, name) == nil then
        rawset(_G, name, value)
    end
end

-- Loads perigee and makes the REPL's globals, none of which replaces one of the script's. Returns the banner's line.
local function prepare()
    local ok, pg = pcall(require, "perigee")
    set_global("help", help)
    set_global("who", function()
        loop.write(who.text(_G))
    end)
    if not ok then
        local reason = tostring(pg)
        if reason:find("^module 'perigee' not found") then
            reason = reason:match("^[^\n]*"):gsub(":$", "")
        end
        return "perigee could not be loaded: " .. reason
    end
    set_global("pg", pg)
    set_global("nn", pg.nn)
    set_global("F", pg.nn.functional)
    return "pg, nn and F are loaded; help tells more, Ctrl-D leaves"
end

---Runs until the user leaves.
function M.run()
    local host = require "perigee.host"
    loop.write(("Perigee %s on %s"):format(host.version, jit.version))
    loop.write(prepare())
    loop.run {
        prompt = "> ",
        commands = {
            help = print_help,
            who = function()
                loop.write(who.text(_G))
            end,
        },
        environment = _G,
        set_last = function(value)
            rawset(_G, "_", value)
        end,
    }
end

return M
