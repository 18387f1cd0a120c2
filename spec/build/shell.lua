-- Running commands from the build's specs.
local shell = {}

local kept_variables = { "LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS" }

---@param word string
---@return string one shell word
function shell.quote(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- Runs a command line in sh; returns its status and its output, standard error included.
---@param command string
---@return integer status, string output
function shell.run(command)
    local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1 </dev/null; printf '\\n%d' $?", "r"))
    local text = pipe:read("*a")
    pipe:close()
    local output, status = text:match("^(.*)\n(%d+)$")
    return tonumber(status), output
end

--- The same; anything but status 0 is an error that shows the output.
---@param command string
---@return string output
function shell.must(command)
    local status, output = shell.run(command)
    if status ~= 0 then
        error(("status %d of: %s\n%s"):format(status, command, output), 2)
    end
    return output
end

--- `env -i` with a plain PATH, what the sanitizers need, and the variables given.
---@param variables table<string, string>?
---@return string prefix of a command line
function shell.bare_environment(variables)
    local words = { "env -i PATH=/usr/bin:/bin HOME=/nonexistent LC_ALL=C.UTF-8" }
    for _, name in ipairs(kept_variables) do
        local value = os.getenv(name)
        if value then
            words[#words + 1] = name .. "=" .. shell.quote(value)
        end
    end
    for name, value in pairs(variables or {}) do
        words[#words + 1] = name .. "=" .. shell.quote(value)
    end
    return table.concat(words, " ")
end

function shell.temporary_folder()
    return (shell.must("mktemp -d"):gsub("%s+$", ""))
end

function shell.write(path, text)
    local file = assert(io.open(path, "wb"))
    assert(file:write(text))
    assert(file:close())
end

function shell.read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

shell.source = shell.must("pwd -P"):gsub("%s+$", "")
shell.build = os.getenv("PERIGEE_BUILD") or "build"
if shell.build:sub(1, 1) ~= "/" then
    shell.build = shell.source .. "/" .. shell.build
end

local needed = shell.must("readelf -d " .. shell.quote(shell.build .. "/libperigee.so"))

-- The library under test was built with sanitizers; with the thread sanitizer, under which what takes a second
-- takes a minute on emulated CUDA.
shell.sanitized = needed:find("lib[atu]b?san") ~= nil
shell.watches_races = needed:find("libtsan", 1, true) ~= nil

-- What runs Lua scripts on the library under test; the thread sanitizer cannot be preloaded into luajit.
shell.interpreter = shell.watches_races and shell.quote(shell.build .. "/perigee") or "luajit"

return shell
