--- Checkpoints: a nested table of tensors, numbers, texts and booleans in one safetensors file.
--
-- The tensors are the file's tensors (any safetensors reader opens it: a model's state dict keeps its keys under
-- "model."), the rest is JSON in its metadata, each tensor standing there by its name. One file, written aside,
-- synced and renamed: an interruption at any moment leaves the previous checkpoint or the new one, whole.

local ffi = require("ffi")
local check = require("perigee.check")
local json = require("perigee.json")
local ordered_dict = require("perigee.nn.ordered_dict")

local M = {}

local KEY = "perigee.checkpoint"
local VERSION = 1

local function is_sequence(t)
    local n = 0
    for _ in pairs(t) do
        n = n + 1
    end
    for i = 1, n do
        if t[i] == nil then
            return false
        end
    end
    return n > 0
end

-- Marks start with "$"; a user's key that does gets one more.
local function escape(key)
    return key:sub(1, 1) == "$" and "$" .. key or key
end

local pack

local function pack_table(value, path, tensors, depth)
    if depth > 100 then
        check.fail("save_checkpoint: nested deeper than 100 at %s (a cycle?)", path)
    end
    if ordered_dict.is(value) then
        local keys, packed = {}, {}
        for key, item in value:iter() do
            keys[#keys + 1] = key
            packed[escape(key)] = pack(item, path == "" and key or path .. "." .. key, tensors, depth + 1)
        end
        return { ["$ordered"] = json.array(keys), ["$values"] = packed }
    end
    if is_sequence(value) then
        local packed = json.array({})
        for i, item in ipairs(value) do
            packed[i] = pack(item, path .. "." .. (i - 1), tensors, depth + 1)
        end
        return packed
    end
    local packed, numbered = {}, nil
    for key, item in pairs(value) do
        local where = path == "" and tostring(key) or path .. "." .. tostring(key)
        if type(key) == "string" then
            packed[escape(key)] = pack(item, where, tensors, depth + 1)
        elseif type(key) == "number" then
            numbered = numbered or {}
            numbered[#numbered + 1] = key
        else
            check.fail("save_checkpoint: %s has a key of type %s", path, type(key))
        end
    end
    if numbered then
        table.sort(numbered)
        local pairs_ = json.array({})
        for i, key in ipairs(numbered) do
            local where = path == "" and tostring(key) or path .. "." .. ("%.14g"):format(key)
            pairs_[i] = json.array { key, pack(value[key], where, tensors, depth + 1) }
        end
        packed["$numbered"] = pairs_
    end
    return packed
end

function pack(value, path, tensors, depth)
    local kind = type(value)
    if kind == "number" then
        if value - value ~= 0 then
            return { ["$number"] = tostring(value) }
        end
        return value
    elseif kind == "string" then
        -- JSON is text: bytes that may not be UTF-8 travel as hexadecimal digits.
        if value:find("[\128-\255]") then
            return { ["$bytes"] = (value:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) }
        end
        return value
    elseif kind == "boolean" then
        return value
    elseif kind == "table" then
        return pack_table(value, path, tensors, depth)
    elseif kind == "cdata" then
        if ffi.istype("int64_t", value) or ffi.istype("uint64_t", value) then
            return { ["$int64"] = (tostring(value):gsub("U?LL$", "")) }
        elseif require("perigee").is_tensor(value) then
            local name = path == "" and "tensor" or path
            while tensors[name] do
                name = name .. "_"
            end
            tensors[name] = value:detach()
            return { ["$tensor"] = name }
        end
    end
    check.fail("save_checkpoint: cannot write a %s (at %s)", kind, path == "" and "the top" or path)
end

local function parse_int64(text)
    local negative, digits = text:match("^(%-?)(%d+)$")
    local value = ffi.new("int64_t", 0)
    for digit in (digits or ""):gmatch("%d") do
        value = value * 10 + tonumber(digit)
    end
    return negative == "-" and -value or value
end

local unpack_value

local function unpack_table(value, tensors)
    if value["$tensor"] then
        local tensor = tensors[value["$tensor"]]
        if not tensor then
            error(("the tensor %q is missing"):format(tostring(value["$tensor"])), 0)
        end
        return tensor
    elseif value["$number"] then
        return tonumber(value["$number"]) or (value["$number"]:find("inf") and
            (value["$number"]:sub(1, 1) == "-" and -math.huge or math.huge)) or 0 / 0
    elseif value["$int64"] then
        return parse_int64(value["$int64"])
    elseif value["$bytes"] then
        return (value["$bytes"]:gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end))
    elseif value["$ordered"] then
        local result = ordered_dict.new()
        for _, key in ipairs(value["$ordered"]) do
            result[key] = unpack_value(value["$values"][escape(key)], tensors)
        end
        return result
    end
    local result = {}
    for key, item in pairs(value) do
        if key == "$numbered" then
            for _, pair in ipairs(item) do
                result[pair[1]] = unpack_value(pair[2], tensors)
            end
        elseif type(key) == "string" and key:sub(1, 1) == "$" then
            result[key:sub(2)] = unpack_value(item, tensors)
        else
            result[key] = unpack_value(item, tensors)
        end
    end
    return result
end

function unpack_value(value, tensors)
    if type(value) == "table" then
        return unpack_table(value, tensors)
    end
    return value
end

--- Saves a nested table: state dicts, numbers (bit for bit), texts, booleans, tensors. A tensor or a value alone will
-- do too.
---@param path string
---@param state any
function M.save(path, state)
    if type(path) ~= "string" then
        check.fail("save_checkpoint: expected a path, got %s", check.describe(path))
    end
    local tensors = {}
    local packed = pack(state, "", tensors, 0)
    require("perigee").safetensors.save(path, tensors, {
        [KEY] = json.encode(packed), [KEY .. ".version"] = tostring(VERSION),
    })
end

--- Loads what save wrote. Tensors come back as new ones on the CPU, without gradient.
---@param path string
---@return any
function M.load(path)
    if type(path) ~= "string" then
        check.fail("load_checkpoint: expected a path, got %s", check.describe(path))
    end
    local tensors, metadata = require("perigee").safetensors.load(path)
    local text = metadata and metadata[KEY]
    if not text then
        check.fail("load_checkpoint: %s is no checkpoint of Perigee (its metadata has no %q); pg.safetensors.load "
            .. "reads any safetensors file", path, KEY)
    elseif metadata[KEY .. ".version"] ~= tostring(VERSION) then
        check.fail("load_checkpoint: %s has version %s, expected %d", path, tostring(metadata[KEY .. ".version"]),
            VERSION)
    end
    local ok, state = pcall(function()
        return unpack_value(json.decode(text), tensors)
    end)
    if not ok then
        check.fail("load_checkpoint: %s: %s", path, state)
    end
    return state
end

return M
