--- Text as tokens: a vocabulary of characters.

local ffi = require("ffi")
local check = require("perigee.check")
local parameter = require("perigee.nn.parameter")
local pg = require("perigee")

local Characters = {}
Characters.__index = Characters

local M = {}

-- A character is a byte and the UTF-8 continuation bytes behind it: any text falls into characters without loss.
local CHARACTER = ".[\128-\191]*"

local function make(characters)
    local ids = {}
    for id, character in ipairs(characters) do
        ids[character] = id - 1
    end
    return setmetatable({ characters = characters, ids = ids }, Characters)
end

--- The vocabulary of a text: its characters in byte order, or of a list of characters.
---@param source string|string[]
function M.Characters(source)
    if type(source) == "table" then
        return make(source)
    elseif type(source) ~= "string" or source == "" then
        check.fail("Characters: expected a text that is not empty, got %s", check.describe(source))
    end
    local seen, list = {}, {}
    for character in source:gmatch(CHARACTER) do
        if not seen[character] then
            seen[character] = true
            list[#list + 1] = character
        end
    end
    table.sort(list)
    return make(list)
end

--- How many characters the vocabulary has.
---@return integer
function Characters:len()
    return #self.characters
end

--- The ids of a text. An unknown character is an error that names it.
---@param text string
---@return Tensor (n) int64
function Characters:encode(text)
    local buffer, n = ffi.new("int64_t[?]", #text + 1), 0
    local ids = self.ids
    for character in text:gmatch(CHARACTER) do
        local id = ids[character]
        if not id then
            check.fail("encode: %q is not in the vocabulary (%d characters: %s)", character, #self.characters,
                (table.concat(self.characters):gsub("%c", "")))
        end
        buffer[n] = id
        n = n + 1
    end
    return pg.from_memory(buffer, { n }, pg.int64)
end

--- The text of ids.
---@param ids Tensor|integer[]|integer
---@return string
function Characters:decode(ids)
    if parameter.is_tensor(ids) then
        ids = ids:flatten():totable()
    elseif type(ids) == "number" then
        ids = { ids }
    end
    local parts = {}
    for k, id in ipairs(ids) do
        parts[k] = self.characters[id + 1] or check.fail("decode: there is no character %s", tostring(id))
    end
    return table.concat(parts)
end

return M
