-- Read, evaluate, print, again: shared by the REPL and the pause.

local complete = require "perigee.repl.complete"
local history = require "perigee.repl.history"
local show = require "perigee.repl.show"
local trace = require "perigee.repl.trace"

local M = {}

-- What lasts as long as the program.
local timing = false
local last_traceback
local history_loaded = false
local last_line

local function write(text)
    io.stdout:write(text, "\n")
    io.stdout:flush()
end
M.write = write

local function is_incomplete(message)
    return message:find("near '<eof>'$") ~= nil
end

---Compiles what was typed: as an expression first, then as statements.
---@param source string
---@return function? chunk
---@return string? message   where there is no chunk
---@return boolean? more     true if further lines may complete it
---@return boolean? muted    true where a ";" ends the expression
---@return boolean? expression   true where the chunk's first result is not the user's
function M.compile(source)
    -- The newline makes an unfinished string an error, not a text that goes on.
    local expression = source:match("^%s*=(.*)$") or source
    local without, semicolons = expression:gsub("[;%s]*;%s*$", "")
    -- Not "return f(x)" alone: that is a tail call, and an error in f would be blamed on this file.
    local chunk, as_expression = loadstring("return nil, " .. without .. "\n", "=stdin")
    if chunk then
        return chunk, nil, nil, semicolons > 0, true
    end
    local message
    chunk, message = loadstring(" " .. source .. "\n", "=stdin")      -- behind a blank nothing is bytecode
    if chunk then
        return chunk
    end
    local more = is_incomplete(message) or semicolons == 0 and is_incomplete(as_expression)
    return nil, message, more
end

local function remember(host, line)
    if line:find("%S") and line ~= last_line then
        last_line = line
        for piece in line:gmatch("[^\n]+") do
            host.add_history(piece)
            history.append(piece)
        end
    end
end

local function load_history(host)
    if not history_loaded then
        history_loaded = true
        for _, line in ipairs(history.load()) do
            host.add_history(line)
            last_line = line
        end
    end
end

local function message_text(message)
    if type(message) == "string" then
        return message
    end
    local ok, text = pcall(show.value, message)
    return ok and "error: " .. text or "error: a " .. type(message)
end

local function handle_error(message)
    local text = message_text(message)
    last_traceback = debug.traceback(text, 2)
    local frames = trace.short(2)
    return frames == "" and text or text .. "\n" .. frames
end

-- Runs the chunk and prints its values. Both may be interrupted.
local function evaluate(host, chunk, set_last)
    local started = host.clock()
    local function finish(...)
        local seconds = host.clock() - started
        local count = select("#", ...)
        if count > 0 then
            if (...) ~= nil then
                set_last((...))
            end
            if not chunk.muted then
                write(show.values(count, ...))
            end
        end
        return seconds
    end
    local function finish_expression(_, ...)
        return finish(...)
    end
    local run = chunk.run
    local ok, result = host.call(function()
        if chunk.is_expression then
            return finish_expression(run())
        end
        return finish(run())
    end, handle_error)
    io.stdout:flush()
    if not ok then
        io.stderr:write(message_text(result), "\n")
        io.stderr:flush()
        result = host.clock() - started
    end
    if timing then
        write(result < 1 and ("(%.3g ms)"):format(result * 1e3) or ("(%.3f s)"):format(result))
    end
end

-- The words that every loop knows, beside its own commands.
local common_commands = {}

function common_commands.trace()
    write(last_traceback or "no error so far")
end

common_commands["time on"] = function()
    timing = true
    write("timing is on: each line tells how long it took")
end

common_commands["time off"] = function()
    timing = false
    write("timing is off")
end

common_commands["exit"] = function()
    return "leave"
end
common_commands["quit"] = common_commands["exit"]

-- Reads until the lines are a whole chunk or a command's word. Returns one of: {command = function},
-- {run = function, ...}, {message = string} for what does not compile; {} where the lines were given up; nil at the
-- end of the input.
local function read_chunk(host, prompt, commands)
    local source, pending
    while true do
        local line = host.readline(pending and prompt:gsub("> $", ">> ") or prompt)
        if line == false then
            return {}
        elseif not line then
            if pending then
                return {message = pending}
            end
            return nil
        end
        remember(host, line)
        source = source and source .. "\n" .. line or line
        local word = not pending and line:match("^%s*(.-)%s*$"):gsub("%s+", " ")
        if word and commands[word] then
            return {command = commands[word]}
        end
        local run, message, more, muted, is_expression = M.compile(source)
        if not more then
            return {run = run, message = message, muted = muted, is_expression = is_expression}
        end
        pending = message
    end
end

---Reads and runs lines until a command answers "leave" or the input ends.
---@param options table
---  prompt: "> "; commands: word -> function() -> "leave"?, value; set_last: f(value); environment: the table that
---  chunks run in; extra_names: f() -> set of names for completion, or nil
---@return any value  of the command that left; nil at the end of the input
function M.run(options)
    local host = require "perigee.host"
    local commands = setmetatable(options.commands, {__index = common_commands})
    load_history(host)
    while true do
        host.set_completer(function(line, start)
            return complete.complete(line, start, {
                environment = options.environment,
                extra_names = options.extra_names and options.extra_names(),
                list_directory = host.list_directory,
            })
        end)
        local chunk = read_chunk(host, options.prompt, commands)
        if not chunk then
            if host.is_terminal() then
                io.stdout:write("\n")
            end
            return nil
        elseif chunk.command then
            local action, value = chunk.command()
            if action == "leave" then
                return value
            end
        elseif chunk.run then
            setfenv(chunk.run, options.environment)
            evaluate(host, chunk, options.set_last)
        elseif chunk.message then
            io.stderr:write(chunk.message, "\n")
            io.stderr:flush()
        end
    end
end

return M
