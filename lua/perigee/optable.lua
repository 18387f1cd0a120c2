--- The op table: reads perigee_api.h and gives each op's name, parameters, results and attributes.
--
-- Pure Lua without FFI: the build's generator (engine/generate.lua) and the binding both read the header through
-- this module. The grammar is in engine/README.md. A row is a comment that starts with a signature and the
-- prototype that follows it; the prototype is derived from the signature here and compared with what is written.

local optable = {}

---@class Param
---@field name string
---@field kind string tensor, tensors, tensor_number, number, number_word, int, ints, float, bool, dtype, device, string
---or word
---@field optional boolean nil is allowed
---@field default any a number, boolean, string, table of ints or DTYPE name; nil where there is none or it is nil
---@field has_default boolean
---@field option boolean options only (after `*`)
---@field size integer? N of int[N]
---@field words string[]? the words in order
---@field rest boolean? int...: may be given as several arguments

---@class Result
---@field name string
---@field kind string tensor, tensors, number, int or bool

---@class Row
---@field name string as written, with its namespace
---@field namespace string "" or "nn.functional"
---@field short string the last component of the name
---@field symbol string pg_add
---@field params Param[]
---@field results Result[] empty where the op gives back its first argument
---@field returns_self boolean
---@field attrs table<string, any>
---@field doc string
---@field signature string on one line
---@field section string
---@field line integer
---@field index integer position among the rows

local DTYPES = {
    bool = true, uint8 = true, int8 = true, int16 = true, int32 = true, int64 = true,
    float16 = true, bfloat16 = true, float32 = true, float64 = true,
}

local OPERATORS = { ["+"] = true, ["-"] = true, ["*"] = true, ["/"] = true, ["%"] = true, ["^"] = true, ["neg"] = true }

local function trim(s)
    return (s:gsub("^%s+", ""):gsub("%s+$", ""))
end

--- Splits at a separator outside of brackets and quotes.
local function split(text, separator)
    local parts, depth, start, quote = {}, 0, 1, nil
    for k = 1, #text do
        local c = text:sub(k, k)
        if quote then
            if c == quote then quote = nil end
        elseif c == "'" or c == '"' then
            quote = c
        elseif c == "(" or c == "[" or c == "{" then
            depth = depth + 1
        elseif c == ")" or c == "]" or c == "}" then
            depth = depth - 1
        elseif c == separator and depth == 0 then
            parts[#parts + 1] = trim(text:sub(start, k - 1))
            start = k + 1
        end
    end
    local last = trim(text:sub(start))
    if last ~= "" or #parts > 0 then parts[#parts + 1] = last end
    return parts
end

--- The position of the bracket that closes the one at `open`.
local function closing(text, open)
    local depth, quote = 0, nil
    for k = open, #text do
        local c = text:sub(k, k)
        if quote then
            if c == quote then quote = nil end
        elseif c == "'" or c == '"' then
            quote = c
        elseif c == "(" or c == "[" or c == "{" then
            depth = depth + 1
        elseif c == ")" or c == "]" or c == "}" then
            depth = depth - 1
            if depth == 0 then return k end
        end
    end
    return nil
end

local function parse_type(text, fail)
    local param = { optional = false }
    if text:sub(-1) == "?" then
        param.optional = true
        text = text:sub(1, -2)
    end
    local words, kinds = {}, {}
    for _, alternative in ipairs(split(text, "|")) do
        local word = alternative:match("^'(.*)'$")
        if word then
            words[#words + 1] = word
        elseif alternative == "Tensor" then
            kinds[#kinds + 1] = "tensor"
        elseif alternative == "Tensor[]" then
            kinds[#kinds + 1] = "tensors"
        elseif alternative == "int[]" then
            kinds[#kinds + 1] = "ints"
        elseif alternative == "int..." then
            kinds[#kinds + 1] = "ints"
            param.rest = true
        elseif alternative:match("^int%[%d+%]$") then
            kinds[#kinds + 1] = "ints"
            param.size = tonumber(alternative:match("%d+"))
        elseif alternative == "number" or alternative == "int" or alternative == "float" or alternative == "bool"
            or alternative == "dtype" or alternative == "device" or alternative == "string" then
            kinds[#kinds + 1] = alternative
        else
            fail("unknown type '%s'", alternative)
        end
    end
    local kind = table.concat(kinds, "|")
    if kind == "tensor|number" then kind = "tensor_number" end
    if #words > 0 then
        param.words = words
        if kind == "" then
            kind = "word"
        elseif kind == "number" then
            kind = "number_word"
        elseif kind ~= "ints" then
            fail("words do not go with the type '%s'", kind)
        end
    end
    if kind:find("|", 1, true) or kind == "" then fail("no such combination of types: '%s'", text) end
    param.kind = kind
    return param
end

local function parse_default(text, param, fail)
    if text == "nil" then
        if not param.optional then fail("%s: the default nil needs a '?' behind the type", param.name) end
        return nil
    elseif text == "true" then
        return true
    elseif text == "false" then
        return false
    elseif text == "inf" then
        return math.huge
    elseif text == "-inf" then
        return -math.huge
    elseif tonumber(text) then
        return tonumber(text)
    elseif text:match("^'.*'$") then
        return text:sub(2, -2)
    elseif text:match("^[%({].*[%)}]$") then
        local list = {}
        for _, item in ipairs(split(text:sub(2, -2), ",")) do
            if item ~= "" then
                if not tonumber(item) then fail("%s: the default %s is not a list of integers", param.name, text) end
                list[#list + 1] = tonumber(item)
            end
        end
        return list
    elseif DTYPES[text] and param.kind == "dtype" then
        return text
    end
    fail("%s: cannot read the default '%s'", param.name, text)
end

local function check_default(param, fail)
    local value, kind = param.default, param.kind
    if value == nil then return end
    local is = type(value)
    local ok
    if kind == "bool" then
        ok = is == "boolean"
    elseif kind == "number" or kind == "tensor_number" or kind == "int" or kind == "float" then
        ok = is == "number" and (kind ~= "int" or value % 1 == 0)
    elseif kind == "ints" then
        ok = is == "number" or is == "table" or is == "string"
    elseif kind == "tensor" or kind == "tensors" then
        ok = false
    else
        ok = is == "string" or (kind == "number_word" and is == "number")
    end
    if ok and is == "string" and param.words then
        ok = false
        for _, word in ipairs(param.words) do ok = ok or word == value end
    end
    if not ok then fail("%s: the default does not fit the type", param.name) end
end

local function parse_params(text, fail)
    local params, option, seen = {}, false, {}
    for _, item in ipairs(split(text, ",")) do
        if item == "*" then
            if option then fail("two '*' among the parameters") end
            option = true
        else
            local name, rest = item:match("^([%a_][%w_]*)%s*:%s*(.+)$")
            if not name then fail("cannot read the parameter '%s'", item) end
            local text_type, default = rest, nil
            local equals = rest:find("=", 1, true)
            if equals then
                text_type, default = trim(rest:sub(1, equals - 1)), trim(rest:sub(equals + 1))
            end
            local param = parse_type(text_type, fail)
            param.name, param.option = name, option
            param.has_default = default ~= nil
            if default then
                param.default = parse_default(default, param, fail)
                check_default(param, fail)
            elseif param.optional then
                fail("%s: what may be nil needs a default (= nil)", name)
            end
            if seen[name] then fail("two parameters are called %s", name) end
            seen[name] = true
            params[#params + 1] = param
        end
    end
    return params
end

local function parse_result(text, fail)
    local single = {
        ["Tensor"] = "tensor", ["Tensor[]"] = "tensors", ["number"] = "number", ["int"] = "int", ["bool"] = "bool",
    }
    if text == "self" then return {}, true end
    if single[text] then return { { name = "out", kind = single[text] } }, false end
    local inside = text:match("^%((.*)%)$")
    if not inside then fail("cannot read the result '%s'", text) end
    local results = {}
    for _, item in ipairs(split(inside, ",")) do
        local name, is = item:match("^([%a_][%w_]*)%s*:%s*(%S+)$")
        if is ~= "Tensor" then fail("cannot read the result '%s'", item) end
        results[#results + 1] = { name = name, kind = "tensor" }
    end
    return results, false
end

local function parse_attrs(text, fail)
    local attrs = {}
    local flags = { out = true, view = true, grad = true, grad2 = true, nograd = true, random = true, sync = true,
                    internal = true, method = true, ["any device"] = true, ["cpu scalars"] = true }
    for _, item in ipairs(split(text, ",")) do
        if flags[item] then
            attrs[item] = true
        elseif item:match("^method [%a_][%w_]*$") then
            attrs.method = item:match("^method (.*)$")
        elseif item:match("^operator %S+$") then
            local op = item:match("^operator (%S+)$")
            if not OPERATORS[op] then fail("unknown operator %s", op) end
            attrs.operator = op
        elseif item == "inplace own" then
            attrs.inplace_own = true
        elseif item:match("^inplace of pg_[%w_]+$") then
            attrs.inplace_of = item:match("(pg_[%w_]+)$")
        elseif item:match("^same as pg_[%w_]+$") then
            attrs.same_as = item:match("(pg_[%w_]+)$")
        elseif item:match("^autocast (%S+)$") or item:match("^autocast (%S+) cuda$") then
            local kind = item:match("^autocast (%S+)")
            if kind ~= "low" and kind ~= "f32" and kind ~= "promote" and kind ~= "loss" then
                fail("unknown attribute '%s'", item)
            end
            attrs.autocast = kind
            attrs.autocast_cuda = item:match(" cuda$") and true or nil
        elseif item:match('^no cuda "[^"]+"$') then
            attrs.no_cuda = item:match('"(.*)"')
        elseif item ~= "" then
            fail("unknown attribute '%s'", item)
        end
    end
    attrs.differentiable = attrs.grad or attrs.grad2 or false
    return attrs
end

--- The C parameters of a row in order, each { type, name }.
---@param row Row
function optable.c_params(row)
    local list = {}
    local function add(ctype, name) list[#list + 1] = { ctype, name } end
    for _, result in ipairs(row.results) do
        if result.kind == "tensor" then
            add("pg_tensor *", result.name)
        elseif result.kind == "tensors" then
            add("pg_tensor_list *", result.name)
        elseif result.kind == "number" then
            add("pg_number *", result.name)
        elseif result.kind == "int" then
            add("int64_t *", result.name)
        else
            add("bool *", result.name)
        end
    end
    for k, p in ipairs(row.params) do
        local kind, name = p.kind, p.name
        if kind == "tensor" then
            add((row.returns_self and k == 1) and "pg_tensor *" or "const pg_tensor *", name)
        elseif kind == "tensors" then
            add("const pg_tensor *const *", name)
            add("int ", name .. "_n")
        elseif kind == "tensor_number" then
            add("const pg_tensor *", name)
            add("const pg_number *", name .. "_number")
        elseif kind == "number" then
            add("const pg_number *", name)
        elseif kind == "number_word" then
            add("const pg_number *", name)
            add("int ", name .. "_word")
        elseif kind == "int" then
            add(p.optional and "const int64_t *" or "int64_t ", name)
        elseif kind == "ints" then
            add("const int64_t *", name)
            add("int ", name .. "_n")
        elseif kind == "float" then
            add(p.optional and "const double *" or "double ", name)
        elseif kind == "bool" then
            add(p.optional and "int " or "bool ", name)
        elseif kind == "dtype" or kind == "word" then
            add("int ", name)
        else -- device, string
            add("const char *", name)
        end
    end
    return list
end

--- The prototype that follows from a row's signature, wrapped at 110 columns.
---@param row Row
---@param prefix string? "pg_" by default
function optable.prototype(row, prefix)
    local head = "int " .. (prefix or "pg_") .. row.symbol:sub(4) .. "("
    local indent = string.rep(" ", #head)
    local lines, line = {}, head
    local params = optable.c_params(row)
    if #params == 0 then return head .. "void);" end
    for k, p in ipairs(params) do
        local text = p[1] .. p[2] .. (k < #params and "," or ");")
        if #line + #text + 1 > 110 and line ~= head then
            lines[#lines + 1] = (line:gsub("%s+$", ""))
            line = indent
        end
        line = line .. text .. (k < #params and " " or "")
    end
    lines[#lines + 1] = line
    return table.concat(lines, "\n")
end

local function squeeze(text)
    return (trim(text:gsub("%s+", " ")):gsub("%( ", "("):gsub(" %)", ")"))
end

local function parse_row(comment, fail)
    local lines = {}
    for line in (comment .. "\n"):gmatch("(.-)\n") do
        lines[#lines + 1] = trim((line:gsub("^%s*%* ?", "")))
    end
    -- The signature ends at the bracket that closes the attributes, which follow the result.
    local text = table.concat(lines, "\n")
    local flat = text:gsub("\n", " ")
    local open = flat:find("(", 1, true)
    local close = closing(flat, open)
    if not close then fail("the parameters do not end") end
    local after = flat:match("^%s*%->%s*()", close + 1)
    if not after then fail("'->' and a result must follow the parameters") end
    local result_end
    if flat:sub(after, after) == "(" then
        result_end = closing(flat, after)
        if not result_end then fail("the results do not end") end
    else
        result_end = select(2, flat:find("^%a+", after))
        if not result_end then fail("a result must follow '->'") end
        if flat:sub(result_end + 1, result_end + 2) == "[]" then result_end = result_end + 2 end
    end
    local bracket = flat:match("^%s*()%[", result_end + 1)
    if not bracket then fail("[attributes] must follow the result (at least [])") end
    local bracket_end = closing(flat, bracket)
    if not bracket_end then fail("the attributes do not end") end

    local row = {}
    row.name = trim(flat:sub(1, open - 1))
    row.namespace = row.name:match("^(.*)%.[^.]+$") or ""
    row.short = row.name:match("([^.]+)$")
    row.params = parse_params(flat:sub(open + 1, close - 1), fail)
    row.results, row.returns_self = parse_result(trim(flat:sub(after, result_end)), fail)
    row.attrs = parse_attrs(flat:sub(bracket + 1, bracket_end - 1), fail)
    row.signature = squeeze(flat:sub(1, result_end))
    local doc = text:sub(bracket_end + 1)
    row.doc = trim(doc)
    if row.returns_self and (not row.params[1] or row.params[1].kind ~= "tensor" or row.params[1].optional) then
        fail("an op that gives back self takes a Tensor first")
    end
    local options = {}
    for _, p in ipairs(row.params) do options[p.name] = true end
    for _, r in ipairs(row.results) do
        if options[r.name] then fail("%s is both a parameter and a result", r.name) end
    end
    local first = row.params[1] and row.params[1].kind
    if row.attrs.method and first ~= "tensor" and first ~= "tensor_number" then
        fail("a method takes a Tensor first")
    end
    return row
end

--- The classes of argument that a parameter takes: number, boolean, string, sequence, tensor, other, and nil.
local function classes(p)
    local set = {}
    local kind = p.kind
    if kind == "tensor" then
        set.tensor = true
    elseif kind == "tensors" then
        set.sequence = true
    elseif kind == "tensor_number" then
        set.tensor, set.number, set.boolean = true, true, true
    elseif kind == "ints" then
        set.sequence, set.number = true, true
    elseif kind == "number" or kind == "int" or kind == "float" or kind == "number_word" then
        set.number = true
        if kind == "number" then set.boolean = true end
    elseif kind == "bool" then
        set.boolean = true
    elseif kind == "dtype" then
        set.dtype = true
    else
        set.string = true
    end
    if p.words then set.string = true end
    if p.optional then set.absent = true end
    return set
end
optable.classes = classes

--- What a parameter accepts beside another overload's parameter at the same place: a list of integers that stands
--- beside a plain number takes sequences alone.
local function classes_beside(p, q)
    local set = classes(p)
    if p.kind == "ints" and q and q.kind ~= "ints" and classes(q).number then
        set.number = nil
    end
    return set
end

local function positional(row)
    local list = {}
    for _, p in ipairs(row.params) do
        if not p.option then list[#list + 1] = p end
    end
    return list
end

local function intersects(a, b)
    for class in pairs(a) do
        if b[class] and class ~= "absent" then return true end
    end
    return false
end

--- Whether some call fits both rows.
local function ambiguous(a, b)
    local pa, pb = positional(a), positional(b)
    local names_a, names_b = {}, {}
    for _, p in ipairs(a.params) do names_a[p.name] = p end
    for _, p in ipairs(b.params) do names_b[p.name] = p end
    local function needs(row, count, others)
        -- The required parameters beyond the first `count` positions must be options that the other row has too.
        local place = 0
        for _, p in ipairs(row.params) do
            local given = false
            if not p.option then
                place = place + 1
                given = place <= count
            end
            if not given and not p.has_default then
                local q = others[p.name]
                if not q or not intersects(classes_beside(p, q), classes_beside(q, p)) then return false end
            end
        end
        return true
    end
    for count = 0, math.min(#pa, #pb) do
        local fits = true
        for k = 1, count do
            local ca, cb = classes_beside(pa[k], pb[k]), classes_beside(pb[k], pa[k])
            if not intersects(ca, cb) and not (ca.absent and cb.absent) then fits = false end
        end
        if not fits then break end
        if needs(a, count, names_b) and needs(b, count, names_a) then return true end
    end
    return false
end

-- Goes through the table's comments and prototypes; calls each(entry) for every row. An entry has name, from and to
-- (the comment's text), prototype (nil behind an alias), section, line.
local function scan(text, file, each)
    local section = ""
    local marker = text:find("the op table =", 1, true)
    if not marker then error(file .. ": the line that starts the op table is missing", 0) end
    local position = select(2, text:find("*/", marker, true)) + 1
    local line, counted = 1, 1
    while true do
        local start = text:find("%S", position)
        if not start then break end
        local newline = text:find("\n", counted, true)
        while newline and newline < start do
            line, counted = line + 1, newline + 1
            newline = text:find("\n", counted, true)
        end
        local function fail(format, ...)
            error(("%s:%d: %s"):format(file, line, format:format(...)), 0)
        end
        if text:sub(start, start + 1) ~= "/*" then
            fail("expected a comment with a signature, got '%s'", text:match("[^\n]*", start))
        end
        local finish = text:find("*/", start + 2, true)
        if not finish then fail("a comment without end") end
        position = finish + 2
        local name = text:match("^%s*([%a_][%w_%.]*)%(", start + 2)
        if not name then
            section = text:sub(start + 2, finish - 1):match("^%s*%-%-%-%-%s*(.-)%s*%-%-%-%-%s*$") or section
        else
            local entry = { name = name, from = start + 2, to = finish - 1, section = section, line = line }
            local from, to = text:find("^%s*int [^;]-;", position)
            if from then
                entry.prototype = squeeze(text:sub(from, to))
                position = to + 1
            end
            each(entry)
        end
    end
end

-- The fields that come from the comment, the prototype and the place.
local function fill(row, entry, text, fail)
    for key, value in pairs(parse_row(text:sub(entry.from, entry.to), fail)) do rawset(row, key, value) end
    row.line, row.section = entry.line, entry.section
    if row.attrs.same_as then
        if entry.prototype then fail("what is the same as %s has no prototype of its own", row.attrs.same_as) end
        row.symbol, row.alias = row.attrs.same_as, true
    else
        local symbol = entry.prototype and entry.prototype:match("^int (pg_[%w_]+)%s*%(")
        if not symbol then
            fail("a prototype 'int pg_...(...);' must follow, got '%s'", tostring(entry.prototype))
        end
        row.symbol = symbol
    end
end

-- What a row takes over from the row that it names.
local function link(row, by_symbol, fail)
    if row.alias then
        local target = by_symbol[row.symbol]
        if not target then fail("same as %s, which is not declared", row.symbol) end
        row.target = target
        if optable.prototype(row) ~= optable.prototype(target) then
            fail("same as %s, but the parameters differ:\n%s", row.symbol, optable.prototype(target))
        end
        for _, key in ipairs { "grad", "grad2", "differentiable", "view", "random", "sync", "autocast", "out" } do
            row.attrs[key] = target.attrs[key]
        end
    end
    if row.attrs.inplace_of and not row.attrs.inplace_own then
        local base = by_symbol[row.attrs.inplace_of]
        if not base then fail("in place of %s, which is not declared", row.attrs.inplace_of) end
        row.base = base
        if #base.results ~= 1 or base.results[1].kind ~= "tensor" then
            fail("in place of %s, which does not give one Tensor", base.symbol)
        end
        if not row.returns_self then fail("an in-place twin gives back self") end
        local mine, theirs = optable.c_params(row), optable.c_params(base)
        for k = 1, math.max(#mine, #theirs - 1) do
            local a, b = mine[k], theirs[k + 1]
            if not a or not b or (k > 1 and a[1] ~= b[1]) or a[2] ~= b[2] then
                fail("the parameters differ from those of %s", base.symbol)
            end
        end
        if row.doc == "" then row.doc = "In place of " .. base.short .. "." end
    end
end

local function failing(file, entry)
    return function(format, ...)
        error(("%s:%d: %s: %s"):format(file, entry.line, entry.name, format:format(...)), 0)
    end
end

--- Reads the header's text.
--- Returns the rows in order; raises a message with the line where the text breaks the grammar.
---@param text string
---@param file string? for messages
---@param check boolean? also compare prototypes and overloads (the build does)
---@return Row[] rows
function optable.parse(text, file, check)
    file = file or "perigee_api.h"
    local rows, by_symbol = {}, {}
    scan(text, file, function(entry)
        local row, fail = { index = #rows + 1 }, failing(file, entry)
        fill(row, entry, text, fail)
        if not row.alias then
            if by_symbol[row.symbol] then fail("%s is declared twice", row.symbol) end
            by_symbol[row.symbol] = row
            if check and entry.prototype ~= squeeze(optable.prototype(row)) then
                fail("the prototype does not follow from the signature; expected\n%s", optable.prototype(row))
            end
        end
        rows[row.index] = row
    end)
    for _, row in ipairs(rows) do link(row, by_symbol, failing(file, row)) end
    if check then optable.check_overloads(rows, file) end
    return rows
end

local LAZY = {
    params = true, results = true, returns_self = true, attrs = true, doc = true, signature = true, symbol = true,
    alias = true, target = true, base = true, section = true, line = true, namespace = true, short = true,
}

--- The same rows, each parsed when one of its fields is first asked for: 300 rows read in full are 1 MB of Lua objects,
--- which every garbage collection marks. Until then a row has its name and index.
---@param text string
---@param file string? for messages
---@return Row[] rows
---@return fun(row: Row, attribute: string): string|boolean mark the attribute's word ("method repeat": "repeat"), true
---where it has none, false where the row lacks it; without parsing the row
function optable.index(text, file)
    file = file or "perigee_api.h"
    local rows, by_symbol = {}, {}
    local from, to, lines, sections, symbols = {}, {}, {}, {}, {}
    local metatable = {}

    function metatable.__index(row, key)
        if not LAZY[key] or rawget(row, "attrs") then return nil end
        local index = row.index
        local entry = {
            name = row.name, from = from[index], to = to[index], line = lines[index], section = sections[index],
            prototype = symbols[index] and "int " .. symbols[index] .. "(",
        }
        local fail = failing(file, entry)
        fill(row, entry, text, fail)
        link(row, by_symbol, fail)
        return rawget(row, key)
    end

    scan(text, file, function(entry)
        local index = #rows + 1
        local row = setmetatable({ name = entry.name, index = index }, metatable)
        rows[index] = row
        from[index], to[index], lines[index], sections[index] = entry.from, entry.to, entry.line, entry.section
        local symbol = entry.prototype and entry.prototype:match("^int (pg_[%w_]+)") or false
        symbols[index] = symbol
        if symbol then by_symbol[symbol] = row end
    end)

    local function mark(row, attribute)
        -- From "->" on: the result, then the attributes.
        local after = select(2, text:find("->%s*", from[row.index]))
        local tail = text:sub(after + 1, math.min(to[row.index], after + 400)):gsub("\n %*", " ")
        local marks = tail:match("^%b()%s*(%b[])") or tail:match("^%a+%[%]%s*(%b[])") or tail:match("^%a+%s*(%b[])")
            or ""
        for word in marks:sub(2, -2):gmatch("[^,]+") do
            local name, value = word:match("^%s*(%S+)%s*(.-)%s*$")
            if name == attribute then return value == "" and true or value end
        end
        return false
    end
    return rows, mark
end

--- Raises where a call could mean two rows of one name.
---@param rows Row[]
function optable.check_overloads(rows, file)
    for _, set in pairs(optable.by_name(rows)) do
        for i = 1, #set do
            for j = i + 1, #set do
                if ambiguous(set[i], set[j]) then
                    error(("%s:%d: overloads that a call cannot tell apart:\n  %s\n  %s (line %d)"):format(
                        file or "perigee_api.h", set[j].line, set[j].signature, set[i].signature, set[i].line), 0)
                end
            end
        end
    end
end

--- Groups the rows by their full Lua name, in order.
---@param rows Row[]
---@return table<string, Row[]>
function optable.by_name(rows)
    local names = {}
    for _, row in ipairs(rows) do
        local set = names[row.name] or {}
        names[row.name] = set
        set[#set + 1] = row
    end
    return names
end

optable.positional = positional
optable.classes_beside = classes_beside

return optable
