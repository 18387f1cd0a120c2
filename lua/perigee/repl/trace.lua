-- Frames of the stack as a user wants to see them: C functions and Perigee's own files left out.

local M = {}

-- "@.../perigee/": every file of ours has a name that starts so; code that we generate starts with "=perigee:".
local own_prefix = debug.getinfo(1, "S").source:match("^(@.*perigee/)repl/trace%.lua$")

---True for a function of Perigee's own Lua files.
---@param info table  of debug.getinfo(..., "S")
---@return boolean
function M.is_own(info)
    return own_prefix ~= nil and info.source:sub(1, #own_prefix) == own_prefix or info.source:sub(1, 9) == "=perigee:"
end

---"train.lua:12: in function 'step'"
---@param info table  of debug.getinfo(..., "Snl")
---@return string
function M.describe(info)
    local place = info.currentline > 0 and ("%s:%d"):format(info.short_src, info.currentline) or info.short_src
    if info.what == "main" then
        return place .. ": in main chunk"
    elseif info.name then
        return ("%s: in function '%s'"):format(place, info.name)
    end
    return ("%s: in function <%s:%d>"):format(place, info.short_src, info.linedefined)
end

local SHOWN = 10

---The user's frames down to the line typed at the prompt, innermost first, one a line; "" where there is none.
---@param level integer  1: the function that calls this one
---@return string
function M.short(level)
    local lines, left_out = {}, 0
    level = level + 1
    while true do
        local info = debug.getinfo(level, "Snl")
        if not info then
            break
        end
        if info.what ~= "C" and not M.is_own(info) then
            if info.source == "=stdin" and info.what == "main" then
                break                   -- what was typed; in a pause the script's frames follow
            elseif #lines < SHOWN then
                lines[#lines + 1] = "  " .. M.describe(info)
            else
                left_out = left_out + 1
            end
        end
        level = level + 1
    end
    if left_out > 0 then
        lines[#lines + 1] = ("  ... and %d more"):format(left_out)
    end
    return table.concat(lines, "\n")
end

return M
