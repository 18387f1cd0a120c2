-- The lines typed in earlier sessions: a text file, one line each, oldest first.

local M = {}

local KEPT = 2000

---Where the history is kept; nil if there is no home. Makes no folder.
---@return string?
function M.path()
    local path = os.getenv("PERIGEE_HISTORY")
    if path and path ~= "" then
        return path
    end
    local state = os.getenv("XDG_STATE_HOME")
    if state and state:sub(1, 1) == "/" then
        return state .. "/perigee/history"
    end
    local home = os.getenv("HOME")
    return home and home ~= "" and home .. "/.local/state/perigee/history" or nil
end

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function open_to_append(path)
    local file = io.open(path, "a")
    if not file then
        local folder = path:match("^(.+)/[^/]*$")
        if folder and os.execute("mkdir -p -- " .. quote(folder) .. " 2>/dev/null") == 0 then
            file = io.open(path, "a")
        end
    end
    return file
end

---The last lines of the file; {} if there is none. A file that has grown to twice what is kept is cut.
---@return string[]
function M.load()
    local path = M.path()
    local file = path and io.open(path, "r")
    if not file then
        return {}
    end
    local lines = {}
    local ok = pcall(function()         -- a folder opens, and fails when read
        for line in file:lines() do
            lines[#lines + 1] = line
        end
    end)
    file:close()
    if not ok then
        return {}
    end
    local kept = {}
    for i = math.max(1, #lines - KEPT + 1), #lines do
        kept[#kept + 1] = lines[i]
    end
    if #lines > 2 * KEPT then
        local temporary = path .. ".new"
        local out = io.open(temporary, "w")
        if out then
            local written = out:write(table.concat(kept, "\n"), "\n")
            if out:close() and written then
                os.rename(temporary, path)
            else
                os.remove(temporary)
            end
        end
    end
    return kept
end

local warned = false

---Adds a line at once, so that nothing is lost with the process. A file that cannot be written is told once.
---@param line string
function M.append(line)
    local path = M.path()
    if not path then
        return
    end
    local file = open_to_append(path)
    if file then
        file:write(line, "\n")
        file:close()
    elseif not warned then
        warned = true
        io.stderr:write("the history cannot be written to ", path, "\n")
    end
end

return M
