-- who(): what the user has made so far, as a table of globals.

local show = require "perigee.repl.show"

local M = {}

local standard = {}
for name in ([[_G _VERSION arg assert bit collectgarbage coroutine debug dofile error gcinfo getfenv getmetatable io
        ipairs jit load loadfile loadstring math module newproxy next os package pairs pcall print rawequal rawget
        rawlen rawset require select setfenv setmetatable string table tonumber tostring type unpack xpcall
        _ pg nn F help who]]):gmatch("%S+") do
    standard[name] = true
end

local function bytes_text(bytes)
    if not bytes then
        return ""
    end
    local unit = 1
    local units = {"B", "KB", "MB", "GB", "TB"}
    while bytes >= 1024 and unit < #units do
        bytes, unit = bytes / 1024, unit + 1
    end
    return unit == 1 and ("%d B"):format(bytes) or ("%.1f %s"):format(bytes, units[unit])
end

local function tensor_bytes(tensor)
    local ok, bytes = pcall(function()
        return tensor:numel() * tensor:element_size()
    end)
    return ok and tonumber(bytes) or nil
end

-- A module's parameters together: their number and bytes.
local function parameters_of(value)
    local ok, count, bytes = pcall(function()
        if type(value.parameters) ~= "function" then
            return 0
        end
        local count, bytes = 0, 0
        for _, parameter in ipairs(value:parameters()) do
            count = count + tonumber(parameter:numel())
            bytes = bytes + (tensor_bytes(parameter) or 0)
        end
        return count, bytes
    end)
    if ok and count > 0 then
        return ("%d parameters"):format(count), bytes
    end
end

-- type, what it is, bytes
local function describe(value)
    local kind = type(value)
    if show.is_tensor(value) then
        return "tensor", show.tensor_summary(value), tensor_bytes(value)
    elseif kind == "string" then
        return kind, show.inline(value), #value
    elseif kind == "table" then
        local text, bytes = parameters_of(value)
        if text then
            return "module", text, bytes
        end
        return kind, show.inline(value)
    elseif kind == "function" then
        local info = debug.getinfo(value, "S")
        return kind, info.what == "C" and "[C]" or ("%s:%d"):format(info.short_src, info.linedefined)
    end
    return kind, show.inline(value)
end

local function pad(text, width)
    return text .. (" "):rep(width - #text)
end

---The user's globals with type, dtype and shape (or value), and bytes, one a line.
---@param globals table
---@return string
function M.text(globals)
    local names = {}
    for name in next, globals do
        if type(name) == "string" and not standard[name] then
            names[#names + 1] = name
        end
    end
    if #names == 0 then
        return "nothing yet: globals that you make stand here"
    end
    table.sort(names)
    local rows, widths, total = {{"name", "type", "value", "bytes"}}, {4, 4, 5, 5}, 0
    for _, name in ipairs(names) do
        local kind, text, bytes = describe(rawget(globals, name))
        rows[#rows + 1] = {name, kind, text, bytes_text(bytes)}
        total = total + (bytes or 0)
    end
    for _, row in ipairs(rows) do
        for k = 1, 4 do
            widths[k] = math.max(widths[k], #row[k])
        end
    end
    for i, row in ipairs(rows) do
        rows[i] = ("%s  %s  %s  %s"):format(pad(row[1], widths[1]), pad(row[2], widths[2]), pad(row[3], widths[3]),
            (" "):rep(widths[4] - #row[4]) .. row[4])
    end
    rows[#rows + 1] = ("%d name%s, %s"):format(#names, #names == 1 and "" or "s", bytes_text(total))
    return table.concat(rows, "\n")
end

return M
