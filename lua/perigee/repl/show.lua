-- Values as the REPL prints them: what has a __tostring by tostring, tables one level deep.

local M = {}

local WIDTH = 80
local MOST_ENTRIES = 50     -- of a table
local MOST_INLINE = 6       -- entries of a table within a table
local MOST_CHARACTERS = 60  -- of a value within a table

local function is_tensor(value)
    local pg = package.loaded["perigee"]
    return type(value) == "cdata" and type(pg) == "table" and type(pg.is_tensor) == "function" and pg.is_tensor(value)
end

local function has_tostring(value)
    local metatable = debug.getmetatable(value)
    return type(metatable) == "table" and rawget(metatable, "__tostring") ~= nil
end

local function to_string(value)
    local ok, text = pcall(tostring, value)
    if ok then
        return text
    elseif tostring(text):find("interrupted$") then
        error(text, 0)
    end
    return ("<%s whose tostring fails: %s>"):format(type(value), tostring(text))
end

---"(3, 4)", as PyTorch's torch.Size without the name.
local function shape_text(tensor)
    local sizes = {}
    for k = 0, tensor:dim() - 1 do
        sizes[k + 1] = tostring(tensor:size(k))
    end
    return "(" .. table.concat(sizes, ", ") .. ")"
end

---A tensor in a few words, without its numbers: "(3, 4) float32", with the device where it is not the CPU.
---@param tensor Tensor
---@return string
function M.tensor_summary(tensor)
    local ok, text = pcall(function()
        local dtype = tostring(tensor.dtype):gsub("^%a+%.", "")
        local device = tostring(tensor.device)
        return shape_text(tensor) .. " " .. dtype .. (device ~= "cpu" and " " .. device or "")
    end)
    return ok and text or "(freed)"
end

local function quoted(text)
    text = ("%q"):format(text):gsub("\\\n", "\\n"):gsub("\r", "\\r"):gsub("%z", "\\0")
    if #text > MOST_CHARACTERS then
        text = text:sub(1, MOST_CHARACTERS - 4) .. "..." .. '"'
    end
    return text
end

local function count_entries(value)
    local count = 0
    for _ in next, value do
        count = count + 1
    end
    return count
end

-- Keys in the order to show them: 1, 2, ... without a gap, then the others by type and value.
local function ordered_keys(value)
    local keys, array = {}, 0
    while rawget(value, array + 1) ~= nil do
        array = array + 1
    end
    for key in next, value do
        if not (type(key) == "number" and key >= 1 and key <= array and key % 1 == 0) then
            keys[#keys + 1] = key
        end
    end
    table.sort(keys, function(a, b)
        local ta, tb = type(a), type(b)
        if ta ~= tb then
            return ta < tb
        elseif ta == "number" or ta == "string" then
            return a < b
        end
        return to_string(a) < to_string(b)
    end)
    return array, keys
end

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true
        until while]]):gmatch("%a+") do
    KEYWORDS[word] = true
end
M.keywords = KEYWORDS

local function key_text(key)
    if type(key) == "string" then
        if key:find("^[%a_][%w_]*$") and not KEYWORDS[key] then
            return key
        end
        return "[" .. quoted(key) .. "]"
    end
    return "[" .. to_string(key) .. "]"
end

-- The entries of a table as texts, at most `most` of them, and how many there are beyond.
local function entries(value, most, show)
    local texts, array, keys = {}, ordered_keys(value)
    for i = 1, math.min(array, most) do
        texts[i] = show(rawget(value, i))
    end
    for i = 1, math.min(#keys, most - #texts) do
        texts[#texts + 1] = key_text(keys[i]) .. " = " .. show(rawget(value, keys[i]))
    end
    return texts, array + #keys - #texts
end

local function scalar(value)
    if type(value) == "string" then
        return quoted(value)
    elseif type(value) == "table" and not has_tostring(value) then
        return next(value) == nil and "{}" or "{...}"
    end
    return M.inline(value)
end

---A value on one line, as it stands in a table.
---@param value any
---@return string
function M.inline(value)
    if type(value) == "string" then
        return quoted(value)
    elseif type(value) == "table" and not has_tostring(value) then
        local texts, more = entries(value, MOST_INLINE, scalar)
        local text = "{" .. table.concat(texts, ", ") .. "}"
        if more > 0 or #text > MOST_CHARACTERS then
            local count = count_entries(value)
            return ("{... %d entr%s}"):format(count, count == 1 and "y" or "ies")
        end
        return text
    elseif is_tensor(value) then
        local text = to_string(value)
        if not text:find("\n", 1, true) and #text <= MOST_CHARACTERS then
            return text
        end
        return "tensor " .. M.tensor_summary(value)
    end
    local text = to_string(value)
    local line = text:match("^[^\n]*")
    if #line < #text or #line > MOST_CHARACTERS then
        line = line:sub(1, MOST_CHARACTERS - 4) .. " ..."
    end
    return line
end

-- Short entries side by side, as many as fit a line.
local function filled(texts)
    local lines, line = {}, "   "
    for _, text in ipairs(texts) do
        if #line + #text + 2 > WIDTH and line ~= "   " then
            lines[#lines + 1] = line
            line = "   "
        end
        line = line .. " " .. text .. ","
    end
    lines[#lines + 1] = line
    return table.concat(lines, "\n")
end

local function show_table(value)
    local texts, more = entries(value, MOST_ENTRIES, M.inline)
    local one_line = "{" .. table.concat(texts, ", ") .. "}"
    if more == 0 and #one_line <= WIDTH then
        return one_line
    end
    local body
    if rawget(value, 1) ~= nil and #texts <= #value then
        body = filled(texts)
    else
        body = "    " .. table.concat(texts, ",\n    ") .. ","
    end
    if more > 0 then
        body = body .. ("\n    ... %d more"):format(more)
    end
    return "{\n" .. body .. "\n}"
end

---A value as the REPL prints it, perhaps on several lines.
---@param value any
---@return string
function M.value(value)
    if type(value) == "table" and not has_tostring(value) then
        return show_table(value)
    elseif type(value) == "function" then
        local info = debug.getinfo(value, "S")
        if info.what ~= "C" and info.linedefined > 0 then
            return ("%s (%s:%d)"):format(to_string(value), info.short_src, info.linedefined)
        end
    end
    return to_string(value)
end

---Several values: on one line if each is short, else one below the other.
---@param count integer
---@return string
function M.values(count, ...)
    local texts, long = {}, false
    for i = 1, count do
        texts[i] = M.value((select(i, ...)))
        long = long or #texts[i] > WIDTH / 2 or texts[i]:find("\n", 1, true) ~= nil
    end
    return table.concat(texts, long and "\n" or "\t")
end

M.is_tensor = is_tensor
M.count_entries = count_entries

return M
