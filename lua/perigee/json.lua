--- JSON as this library's files need it: doubles survive exactly, keys come in a fixed order, NaN and infinities are
-- the strings "NaN", "Infinity" and "-Infinity" (plain JSON has no number for them).

local ffi = require("ffi")

local M = {}

--- JSON's null, and an array even where it is empty.
M.null = setmetatable({}, { __tostring = function() return "null" end })
local array_tag = {}
function M.array(t)
    return setmetatable(t, array_tag)
end

local ESCAPES = {
    ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
}
local function quote(text)
    return '"' .. text:gsub('[%c"\\\127]', function(c)
        return ESCAPES[c] or ("\\u%04x"):format(c:byte())
    end) .. '"'
end

local function number(value)
    if value ~= value then
        return '"NaN"'
    elseif value == math.huge then
        return '"Infinity"'
    elseif value == -math.huge then
        return '"-Infinity"'
    elseif value % 1 == 0 and math.abs(value) < 2 ^ 53 then
        return 1 / value == -math.huge and "-0.0" or ("%.0f"):format(value)
    end
    local text = ("%.15g"):format(value)
    return tonumber(text) == value and text or ("%.17g"):format(value)
end

local function is_array(t)
    if getmetatable(t) == array_tag then
        return true
    end
    local n = 0
    for _ in pairs(t) do
        n = n + 1
        if t[n] == nil then
            return false
        end
    end
    return n > 0
end

local encode_value

local function encode_table(value, out, indent, depth, path)
    if depth > 200 then
        error(("json: nested deeper than 200 at %s (a cycle?)"):format(path), 0)
    end
    local line = indent and "\n" .. indent:rep(depth + 1) or ""
    local last = indent and "\n" .. indent:rep(depth) or ""
    if is_array(value) then
        if #value == 0 then
            out[#out + 1] = "[]"
            return
        end
        for i = 1, #value do
            out[#out + 1] = (i == 1 and "[" or ",") .. line
            encode_value(value[i], out, indent, depth + 1, path .. "[" .. i .. "]")
        end
        out[#out + 1] = last .. "]"
        return
    end
    local keys = {}
    for key in pairs(value) do
        if type(key) ~= "string" then
            error(("json: a key of %s is a %s; only strings can be keys"):format(path, type(key)), 0)
        end
        keys[#keys + 1] = key
    end
    table.sort(keys)
    for i, key in ipairs(keys) do
        out[#out + 1] = (i == 1 and "{" or ",") .. line .. quote(key) .. (indent and ": " or ":")
        encode_value(value[key], out, indent, depth + 1, path .. "." .. key)
    end
    out[#out + 1] = #keys == 0 and "{}" or last .. "}"
end

function encode_value(value, out, indent, depth, path)
    local kind = type(value)
    if value == M.null then
        out[#out + 1] = "null"
    elseif kind == "string" then
        out[#out + 1] = quote(value)
    elseif kind == "number" then
        out[#out + 1] = number(value)
    elseif kind == "boolean" then
        out[#out + 1] = tostring(value)
    elseif kind == "cdata" and (ffi.istype("int64_t", value) or ffi.istype("uint64_t", value)) then
        out[#out + 1] = (tostring(value):gsub("U?LL$", ""))
    elseif kind == "table" then
        encode_table(value, out, indent, depth, path)
    else
        error(("json: cannot write a %s (at %s)"):format(kind, path), 0)
    end
end

--- Encodes a value. Tables with keys 1..n are arrays, others objects with sorted string keys.
---@param value any
---@param indent string? one level of indentation; nil writes one line
---@return string
function M.encode(value, indent)
    local out = {}
    encode_value(value, out, indent, 0, "value")
    return table.concat(out)
end

-- ---- decoding ----

local function syntax_error(text, at, message)
    local line, start = 1, 1
    for newline in text:sub(1, at - 1):gmatch("()\n") do
        line, start = line + 1, newline + 1
    end
    error(("json: line %d, column %d: %s"):format(line, at - start + 1, message), 0)
end

local function utf8_bytes(code)
    if code < 0x80 then
        return string.char(code)
    elseif code < 0x800 then
        return string.char(0xC0 + math.floor(code / 64), 0x80 + code % 64)
    elseif code < 0x10000 then
        return string.char(0xE0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
    end
    return string.char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
        0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

local UNESCAPES = {
    ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}

local function decode_string(text, at)   -- at: the opening quote
    local parts, from = {}, at + 1
    while true do
        local stop = text:find('["\\%c]', from)
        if not stop then
            syntax_error(text, at, "a string without its closing quote")
        end
        parts[#parts + 1] = text:sub(from, stop - 1)
        local c = text:sub(stop, stop)
        if c == '"' then
            return table.concat(parts), stop + 1
        elseif c ~= "\\" and c ~= "\127" then
            syntax_error(text, stop, "a control character inside a string")
        elseif c == "\127" then
            parts[#parts + 1] = c
            from = stop + 1
        else
            local escape = text:sub(stop + 1, stop + 1)
            if escape == "u" then
                local hex = text:match("^%x%x%x%x", stop + 2)
                if not hex then
                    syntax_error(text, stop, "\\u needs four hexadecimal digits")
                end
                local code = tonumber(hex, 16)
                from = stop + 6
                if code >= 0xD800 and code < 0xDC00 then
                    local low = text:match("^\\u(%x%x%x%x)", from)
                    low = low and tonumber(low, 16)
                    if not low or low < 0xDC00 or low > 0xDFFF then
                        syntax_error(text, stop, "half of a surrogate pair")
                    end
                    code = 0x10000 + (code - 0xD800) * 1024 + (low - 0xDC00)
                    from = from + 6
                elseif code >= 0xDC00 and code < 0xE000 then
                    syntax_error(text, stop, "half of a surrogate pair")
                end
                parts[#parts + 1] = utf8_bytes(code)
            elseif UNESCAPES[escape] then
                parts[#parts + 1] = UNESCAPES[escape]
                from = stop + 2
            else
                syntax_error(text, stop, "unknown escape \\" .. escape)
            end
        end
    end
end

local LITERALS = { ["true"] = true, ["false"] = false, null = M.null }

local decode_value

local function skip(text, at)
    return text:find("[^ \t\r\n]", at) or #text + 1
end

local function decode_object(text, at, depth)
    local result = {}
    at = skip(text, at + 1)
    if text:sub(at, at) == "}" then
        return result, at + 1
    end
    while true do
        if text:sub(at, at) ~= '"' then
            syntax_error(text, at, "expected a key in quotes")
        end
        local key
        local key_at = at
        key, at = decode_string(text, at)
        if result[key] ~= nil then
            syntax_error(text, key_at, ("the key %q stands twice"):format(key))
        end
        at = skip(text, at)
        if text:sub(at, at) ~= ":" then
            syntax_error(text, at, "expected ':' after a key")
        end
        result[key], at = decode_value(text, skip(text, at + 1), depth + 1)
        at = skip(text, at)
        local c = text:sub(at, at)
        if c == "}" then
            return result, at + 1
        elseif c ~= "," then
            syntax_error(text, at, "expected ',' or '}'")
        end
        at = skip(text, at + 1)
    end
end

local function decode_array(text, at, depth)
    local result = M.array({})
    at = skip(text, at + 1)
    if text:sub(at, at) == "]" then
        return result, at + 1
    end
    local n = 0
    while true do
        n = n + 1
        result[n], at = decode_value(text, at, depth + 1)
        at = skip(text, at)
        local c = text:sub(at, at)
        if c == "]" then
            return result, at + 1
        elseif c ~= "," then
            syntax_error(text, at, "expected ',' or ']'")
        end
        at = skip(text, at + 1)
    end
end

function decode_value(text, at, depth)
    if depth > 200 then
        syntax_error(text, at, "nested deeper than 200")
    end
    local c = text:sub(at, at)
    if c == "{" then
        return decode_object(text, at, depth)
    elseif c == "[" then
        return decode_array(text, at, depth)
    elseif c == '"' then
        return decode_string(text, at)
    end
    local word = text:match("^%a+", at)
    if word and LITERALS[word] ~= nil then
        return LITERALS[word], at + #word
    end
    local digits = text:match("^-?%d+%.?%d*[eE]?[+-]?%d*", at)
    if not digits or not tonumber(digits) or digits:find("^-?0%d") or digits:find("%.$") or digits:find("%.[eE]") then
        syntax_error(text, at, at > #text and "the text ends where a value is expected" or "not a JSON value")
    end
    return tonumber(digits), at + #digits
end

--- Decodes a JSON text. null comes as `json.null`, arrays carry a mark so that an empty one stays an array.
---@param text string
---@return any
function M.decode(text)
    local value, at = decode_value(text, skip(text, 1), 0)
    at = skip(text, at)
    if at <= #text then
        syntax_error(text, at, "something stands after the value")
    end
    return value
end

return M
