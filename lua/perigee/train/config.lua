--- Settings of a script: defaults on top of the file, overridden by `--key=value`.
--
--   local config = train.config {
--       {"n_layer", 4, "transformer blocks"},
--       {"dropout", 0, "probability of dropping", "float"},
--       {"init_from", "scratch", "where to start", {"scratch", "resume"}},
--   }
--   local settings = config:parse(arg)
--
-- A row is name, default, description and a kind: "int", "float", "bool", "string" or a list of words. Without a
-- kind the default decides: true/false is a bool, a text a string, a whole number an int, another number a float.

local check = require("perigee.check")

local Config = {}
Config.__index = Config

local KIND_WORDS = {
    int = "an integer", float = "a number", bool = "true or false", string = "text",
}

local function kind_of(row)
    if row[4] then
        return row[4]
    end
    local kind = type(row[2])
    if kind == "boolean" then
        return "bool"
    elseif kind == "number" then
        return row[2] % 1 == 0 and "int" or "float"
    elseif kind == "string" then
        return "string"
    end
    check.fail("config: the default of %s is a %s; give its kind", tostring(row[1]), kind)
end

local function expected(kind)
    if type(kind) == "table" then
        return "one of " .. table.concat(kind, ", ")
    end
    return KIND_WORDS[kind]
end

-- The value that a text stands for, or nil where it is of another kind.
local function convert(kind, text)
    if type(kind) == "table" then
        for _, word in ipairs(kind) do
            if word == text then
                return text
            end
        end
        return nil
    elseif kind == "bool" then
        local lower = text:lower()
        if lower == "true" or lower == "1" then
            return true
        elseif lower == "false" or lower == "0" then
            return false
        end
        return nil
    elseif kind == "string" then
        return text
    end
    local value = text:match("^[+-]?[%d%.][%d%.eE+-]*$") and tonumber(text)
    if not value or (kind == "int" and (value % 1 ~= 0 or math.abs(value) > 2 ^ 53)) then
        return nil
    end
    return value
end

local function show(value)
    return type(value) == "number" and ("%.14g"):format(value) or tostring(value)
end

--- The settings with their defaults, one a line.
---@return string
function Config:help()
    local width = 0
    for _, row in ipairs(self.rows) do
        width = math.max(width, #row[1] + #show(row[2]))
    end
    local lines = {}
    for _, row in ipairs(self.rows) do
        local flag = ("--%s=%s"):format(row[1], show(row[2]))
        local text = row[3] or ""
        if type(self.kinds[row[1]]) == "table" then
            text = ("%s (%s)"):format(text, table.concat(self.kinds[row[1]], ", "))
        end
        lines[#lines + 1] = ("  %s%s  %s"):format(flag, (" "):rep(width + 3 - #flag), text)
    end
    return table.concat(lines, "\n")
end

function Config:_unknown(key)
    local near = check.nearest(key, self.names)
    error(("unknown setting --%s%s; the settings are:\n%s"):format(key,
        near and (" (did you mean --%s?)"):format(near) or "", self:help()), 0)
end

--- Reads `--key=value` and `--key value` over the defaults. `--flag` alone sets a bool.
-- Errors: an unknown key, a value of the wrong kind, a word that is no setting; each lists what exists.
---@param argv string[]
---@return table settings name -> value
---@return table given the names that argv set
function Config:parse(argv)
    local settings, given = {}, {}
    for _, row in ipairs(self.rows) do
        settings[row[1]] = row[2]
    end
    local i = 1
    while argv[i] do
        local word = argv[i]
        local key, text = word:match("^%-%-([%w_%-]+)=(.*)$")
        if not key then
            key = word:match("^%-%-([%w_%-]+)$")
            if not key then
                error(("expected --key=value, got %q; the settings are:\n%s"):format(word, self:help()), 0)
            end
        end
        key = key:gsub("-", "_")
        local kind = self.kinds[key]
        if not kind then
            self:_unknown(key)
        end
        if not text then
            local following = argv[i + 1]
            if kind == "bool" and (not following or following:sub(1, 2) == "--") then
                text = "true"
            elseif not following or following:sub(1, 2) == "--" then
                error(("--%s needs a value: expected %s"):format(key, expected(kind)), 0)
            else
                text, i = following, i + 1
            end
        end
        local value = convert(kind, text)
        if value == nil then
            error(("--%s: expected %s, got %q (default: %s)"):format(key, expected(kind), text,
                show(settings[key])), 0)
        end
        settings[key], given[key] = value, true
        i = i + 1
    end
    return settings, given
end

--- For a script's first line: parses, prints the settings for --help and ends with 0, prints an error and ends with
-- 2.
---@param argv string[]
---@param usage string? what the script does, for --help
function Config:parse_or_exit(argv, usage)
    for _, word in ipairs(argv) do
        if word == "--help" or word == "-h" then
            io.stdout:write(usage and usage .. "\n" or "", "settings (--key=value), with their defaults:\n",
                self:help(), "\n")
            os.exit(0)
        end
    end
    local ok, settings, given = pcall(self.parse, self, argv)
    if not ok then
        io.stderr:write(tostring(settings), "\n")
        os.exit(2)
    end
    return settings, given
end

--- Declares settings.
---@param rows table[] each {name, default, description?, kind?}
return function(rows)
    local self = setmetatable({ rows = rows, kinds = {}, names = {} }, Config)
    for i, row in ipairs(rows) do
        if type(row[1]) ~= "string" or row[2] == nil then
            check.fail("config: row %d needs a name and a default", i)
        elseif self.kinds[row[1]] then
            check.fail("config: %s stands twice", row[1])
        end
        self.kinds[row[1]] = kind_of(row)
        self.names[i] = row[1]
    end
    return self
end
