-- Completion: what may follow at the cursor. Names after a path of fields ("model.layers[0].wei"), methods after ":",
-- globals and keywords elsewhere, files inside an open string, op names inside help "...".
--
-- Nothing typed is called: a path is followed by indexing alone, under pcall.

local show = require "perigee.repl.show"

local M = {}

-- Where the string that is open at the end of the line begins (behind its quote), and the quote; nil outside of
-- strings, false inside a comment.
local function open_string(line)
    local i, quote, start = 1, nil, nil
    while i <= #line do
        local c = line:sub(i, i)
        if quote then
            if c == "\\" then
                i = i + 1
            elseif c == quote then
                quote = nil
            end
        elseif c == '"' or c == "'" then
            quote, start = c, i + 1
        elseif line:sub(i, i + 1) == "--" then
            return false
        end
        i = i + 1
    end
    if quote then
        return start, quote
    end
end

local function is_name(key)
    return type(key) == "string" and key:find("^[%a_][%w_]*$") ~= nil and not show.keywords[key]
end

-- The names of a value's fields. A metatable's __index is followed while it is a table.
local function add_names(names, value)
    local pg = package.loaded["perigee"]
    if type(pg) == "table" and type(rawget(pg, "complete")) == "function" then
        local ok, listed = pcall(pg.complete, value)
        if ok and type(listed) == "table" then
            for _, name in ipairs(listed) do
                if is_name(name) then
                    names[name] = true
                end
            end
        end
    end
    local seen = {}
    while value ~= nil and not seen[value] do
        seen[value] = true
        if type(value) == "table" then
            for key in next, value do
                if is_name(key) then
                    names[key] = true
                end
            end
        end
        local metatable = debug.getmetatable(value)
        value = type(metatable) == "table" and rawget(metatable, "__index") or nil
        if type(value) ~= "table" then
            value = nil
        end
    end
end

local function index(value, key)
    local ok, result = pcall(function()
        return value[key]
    end)
    if ok then
        return result
    end
end

-- The value of a path such as a.b[1]["c"]; nil where there is none.
local function follow(path, environment)
    local name, rest = path:match("^([%a_][%w_]*)(.*)$")
    local value = name and index(environment, name)
    while value ~= nil and rest ~= "" do
        local key, after = rest:match("^%.([%a_][%w_]*)(.*)$")
        if not key then
            key, after = rest:match("^%[(%-?%d+)%](.*)$")
            key = tonumber(key)
        end
        if not key then
            local _
            _, key, after = rest:match("^%[([\"'])([^\"'\\]*)%1%](.*)$")
        end
        if key == nil then
            return nil
        end
        value, rest = index(value, key), after
    end
    return value
end

-- The longest path that ends where the text ends; "" if there is none.
local function path_at_end(text)
    local best = ""
    local rest = text
    while true do
        local before, piece = rest:match("^(.-)([%a_][%w_]*)$")
        if before then
            best = piece .. best
            if before:sub(-1) ~= "." or before:sub(-2) == ".." then
                return best
            end
            best, rest = "." .. best, before:sub(1, -2)
        else
            before, piece = rest:match("^(.*)(%[%-?%d+%])$")
            if not before then
                before, piece = rest:match("^(.*)(%[\"[^\"\\%[%]]*\"%])$")
            end
            if not before then
                before, piece = rest:match("^(.*)(%['[^'\\%[%]]*'%])$")
            end
            if not before then
                return ""
            end
            best, rest = piece .. best, before
        end
    end
end

local function sorted(names, partial)
    local list = {}
    local hidden = partial:sub(1, 1) ~= "_"
    for name in next, names do
        if name:sub(1, #partial) == partial and not (hidden and name:sub(1, 1) == "_") then
            list[#list + 1] = name
        end
    end
    table.sort(list)
    return list
end

-- Words behind `cut` characters that the editor keeps as they are.
local function cut_all(list, cut)
    for i, word in ipairs(list) do
        list[i] = word:sub(cut + 1)
    end
    return list
end

local function complete_file(typed, list_directory)
    local folder, partial = typed:match("^(.*/)([^/]*)$")
    if not folder then
        folder, partial = "", typed
    end
    local names = {}
    for _, name in ipairs(list_directory(folder == "" and "." or folder) or {}) do
        if name:sub(1, #partial) == partial and (name:sub(1, 1) ~= "." or partial:sub(1, 1) == ".") then
            names[#names + 1] = folder .. name
        end
    end
    table.sort(names)
    return names
end

local function complete_name(line, environment, extra_names)
    local partial = line:match("[%a_][%w_]*$") or ""
    local before = line:sub(1, #line - #partial)
    local separator = before:match("([%.:])$")
    if separator == "." and before:sub(-2) == ".." then
        separator = nil
    end
    local names = {}
    if separator then
        local path = path_at_end(before:sub(1, -2))
        if path == "" then
            return {}, partial
        end
        local value = follow(path, environment)
        if value == nil then
            return {}, partial
        end
        add_names(names, value)
        if separator == ":" then
            for name in next, names do
                local method = index(value, name)
                if type(method) ~= "function" and (type(method) ~= "cdata" or show.is_tensor(method)) then
                    names[name] = nil
                end
            end
        end
    else
        for name in next, show.keywords do
            names[name] = true
        end
        add_names(names, environment)
        for name in next, extra_names do
            names[name] = true
        end
    end
    return sorted(names, partial), partial
end

---The words that may stand at line[start + 1 ..], and what follows a single one ("" or a closing quote).
---@param line string  up to the cursor
---@param start integer  0-based: where the editor thinks that the word begins
---@param options table  environment: where names are looked up; extra_names: a set of further names; list_directory:
---  f(path) -> names
---@return string[], string
function M.complete(line, start, options)
    local string_start, quote = open_string(line)
    if string_start == false then
        return {}, ""
    elseif string_start then
        local typed, cut = line:sub(string_start), start + 1 - string_start
        if cut < 0 then
            return {}, ""
        end
        local words
        if line:sub(1, string_start - 2):find("help%s*%(?%s*$") then
            local names = {}
            add_names(names, package.loaded["perigee"])
            words = sorted(names, typed)
        else
            words = complete_file(typed, options.list_directory)
        end
        local is_folder = #words == 1 and words[1]:sub(-1) == "/"
        return cut_all(words, cut), is_folder and "" or quote
    end
    if line:find("^%s*$") then
        return {"    "}, ""             -- Tab at the start of a line indents
    end
    local words, partial = complete_name(line, options.environment, options.extra_names or {})
    return cut_all(words, start - (#line - #partial)), ""
end

return M
