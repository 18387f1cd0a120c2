-- Writes the C that follows from the op table:
--   luajit engine/generate.lua engine/include/perigee_api.h OUTDIR
-- pg_ops.h       the prototypes of the hidden implementations op_NAME and their temporary-making forms x_NAME
-- pg_doors.c     the public entries pg_NAME: checks, mode word, out=, in-place twins
-- pg_registry.c  the table of rows and an entry for each that takes boxed arguments
-- Fails where a prototype does not follow from its signature or where two overloads cannot be told apart.

local here = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = here .. "/../lua/?.lua;" .. package.path
local optable = require "perigee.optable"

local function fail(format, ...)
    io.stderr:write("generate: ", format:format(...), "\n")
    os.exit(1)
end

local header, outdir = arg[1], arg[2]
if not header or not outdir then fail("usage: luajit generate.lua perigee_api.h OUTDIR") end
local input = io.open(header, "rb")
if not input then fail("cannot read %s", header) end
local text = input:read("*a")
input:close()

local parsed, all = pcall(optable.parse, text, header, true)
if not parsed then fail("%s", all) end

local rows = {}
for _, row in ipairs(all) do
    if not row.alias then rows[#rows + 1] = row end
end

local AUTOCAST = {
    low = "PG_AUTOCAST_LOW", f32 = "PG_AUTOCAST_F32", promote = "PG_AUTOCAST_PROMOTE", loss = "PG_AUTOCAST_LOSS",
}
-- What a row with `autocast loss` multiplies: these are converted, the rest is left.
local FACTORS = { input = true, linear_weight = true, linear_bias = true }

local function autocast_of(row)
    local kind = AUTOCAST[row.attrs.autocast or ""] or "PG_AUTOCAST_NONE"
    return row.attrs.autocast_cuda and kind .. " | PG_AUTOCAST_CUDA" or kind
end

local function write(name, lines)
    local path = outdir .. "/" .. name
    local body = table.concat(lines, "\n") .. "\n"
    local old = io.open(path, "rb")
    if old then
        local same = old:read("*a") == body
        old:close()
        if same then return end
    end
    local file, message = io.open(path, "wb")
    if not file then fail("cannot write %s: %s", path, message) end
    file:write(body)
    file:close()
end

local function quote(s)
    return '"' .. s:gsub('[\\"]', "\\%0"):gsub("\n", "\\n") .. '"'
end

local function names(list, from)
    local out = {}
    for k = from or 1, #list do out[#out + 1] = list[k][2] end
    return table.concat(out, ", ")
end

local function declared(list, from)
    local out = {}
    for k = from or 1, #list do out[#out + 1] = list[k][1] .. list[k][2] end
    return #out > 0 and table.concat(out, ", ") or "void"
end

local function has_body(row)
    return not row.attrs.inplace_of or row.attrs.inplace_own
end

-- ---- pg_ops.h ----

local ops = {
    "/* Generated from perigee_api.h by engine/generate.lua. */",
    "#ifndef PG_OPS_H",
    "#define PG_OPS_H",
    "",
    '#include "perigee.h"',
    '#include "core/pool.h"',
    "",
}
for _, row in ipairs(rows) do
    if has_body(row) then
        local list, name = optable.c_params(row), row.symbol:sub(4)
        ops[#ops + 1] = optable.prototype(row, "op_")
        if #row.results == 1 and row.results[1].kind == "tensor" then
            local out = row.results[1].name
            local rest = declared(list, 2)
            rest = rest == "void" and "" or ", " .. rest
            ops[#ops + 1] = ("static inline pg_tensor *x_%s(pg_pool *pool%s)\n{"):format(name, rest)
            ops[#ops + 1] = ("    pg_tensor *%s = pg_pool_new(pool);"):format(out)
            ops[#ops + 1] = ("    if (pool->status >= 0) pg_pool_note(pool, op_%s(%s));"):format(name, names(list))
            ops[#ops + 1] = ("    return %s;\n}"):format(out)
        end
    end
end
ops[#ops + 1] = ""
ops[#ops + 1] = "#endif"
write("pg_ops.h", ops)

-- ---- pg_doors.c ----

local doors = {
    "/* Generated from perigee_api.h by engine/generate.lua. */",
    '#include "autograd/autocast.h"',
    '#include "core/door.h"',
    '#include "core/error.h"',
    '#include "pg_ops.h"',
    "",
    "#define wrong(argument, expected) pg_fail(\"%s: expected %s\", argument, expected)",
    "#define out_list_check(list) \\",
    "    ((list) && (list)->magic == PG_LIST_MAGIC && !(list)->items ? PG_OK \\",
    "                                                               : pg_fail(\"out: expected an empty tensor list\"))",
}

local function checks(row, line)
    for _, p in ipairs(row.params) do
        local name = p.name
        local arg_name = quote(name)
        local flags = row.attrs["any device"] and "PG_ARG_ANY_DEVICE"
            or row.attrs["cpu scalars"] and "PG_ARG_CPU_SCALAR" or "0"
        if p.kind == "tensor" then
            if p.optional then
                line("if (s >= 0 && %s) s = pg_door_tensor(&door, %s, %s, %s);", name, name, arg_name, flags)
            else
                line("if (s >= 0) s = pg_door_tensor(&door, %s, %s, %s);", name, arg_name, flags)
            end
        elseif p.kind == "tensors" then
            if p.optional then
                line("if (s >= 0 && %s) s = pg_door_tensors(&door, %s, %s_n, %s, 0);", name, name, name, arg_name)
            else
                line("if (s >= 0) s = pg_door_tensors(&door, %s, %s_n, %s, 0);", name, name, arg_name)
            end
        elseif p.kind == "tensor_number" then
            local absent = p.optional and " && " .. name or ""
            if p.optional then
                line("if (s >= 0%s) s = pg_door_tensor(&door, %s, %s, %s);", absent, name, arg_name, flags)
            else
                line("if (s >= 0 && (%s || !%s_number)) s = pg_door_tensor(&door, %s, %s, %s);", name, name, name,
                    arg_name, flags)
            end
            line("if (s >= 0 && %s && %s_number) s = wrong(%s, \"a tensor or a number, not both\");",
                name, name, arg_name)
        elseif p.kind == "number" or p.kind == "int" or p.kind == "float" then
            if p.kind == "number" and not p.optional then
                line("if (s >= 0 && !%s) s = wrong(%s, \"a number\");", name, arg_name)
            end
        elseif p.kind == "number_word" then
            local low = p.optional and -1 or 0
            line("if (s >= 0 && !%s && (%s_word < %d || %s_word >= %d)) s = wrong(%s, \"a number or one of %s\");",
                name, name, low, name, #p.words, arg_name, table.concat(p.words, ", "))
        elseif p.kind == "ints" then
            local absent = p.words and -#p.words or 0
            if p.optional then
                line("if (s >= 0 && (%s ? %s_n < 0 : %s_n < %d || %s_n > 0)) s = wrong(%s, \"a list of integers\");",
                    name, name, name, absent, name, arg_name)
            elseif p.words then
                line("if (s >= 0 && (%s ? %s_n < 0 : %s_n < %d || %s_n > 0)) s = wrong(%s, \"integers or one of %s\");",
                    name, name, name, absent, name, arg_name, table.concat(p.words, ", "))
            else
                line("if (s >= 0 && (%s_n < 0 || (!%s && %s_n > 0))) s = wrong(%s, \"a list of integers\");",
                    name, name, name, arg_name)
            end
        elseif p.kind == "word" then
            line("if (s >= 0 && (%s < %d || %s >= %d)) s = wrong(%s, \"one of %s\");", name,
                p.optional and -1 or 0, name, #p.words, arg_name, table.concat(p.words, ", "))
        elseif p.kind == "dtype" then
            line("if (s >= 0 && (%s < %d || %s >= PG_DTYPES)) s = wrong(%s, \"a dtype\");", name,
                p.optional and -1 or 0, name, arg_name)
        elseif (p.kind == "device" or p.kind == "string") and not p.optional then
            line("if (s >= 0 && !%s) s = wrong(%s, \"a %s\");", name, arg_name, p.kind)
        end
    end
end

-- Arguments converted as the row's autocast says; gives the line that ends it.
local function autocast(row, line)
    if not row.attrs.autocast or row.attrs.inplace_of then return end
    local given = {}
    if row.attrs.out then
        for _, result in ipairs(row.results) do
            given[#given + 1] = ("(%s && %s->impl)"):format(result.name, result.name)
        end
    end
    for _, p in ipairs(row.params) do
        if p.kind == "dtype" and row.attrs.autocast ~= "loss" then given[#given + 1] = p.name .. " >= 0" end
    end
    line("pg_autocast cast;")
    line("pg_autocast_begin(&cast, &door, s < 0 ? PG_AUTOCAST_NONE : %s, %s);", autocast_of(row),
        #given > 0 and table.concat(given, " || ") or "false")
    line("if (cast.kind) {")
    for _, p in ipairs(row.params) do
        if row.attrs.autocast ~= "promote" then break end
        if p.kind == "tensors" then
            line("    for (int i = 0; i < %s_n; i++) pg_autocast_see(&cast, %s[i]);", p.name, p.name)
        elseif p.kind == "tensor" or p.kind == "tensor_number" then
            line("    pg_autocast_see(&cast, %s);", p.name)
        end
    end
    local loss = row.attrs.autocast == "loss"
    for _, p in ipairs(row.params) do
        local converts = not loss or FACTORS[p.name]
        if p.kind == "tensors" and converts then
            line("    if (s >= 0) s = pg_autocast_list(&cast, &%s, %s_n);", p.name, p.name)
        elseif (p.kind == "tensor" or p.kind == "tensor_number") and converts then
            line("    if (s >= 0) s = pg_autocast_tensor(&cast, &%s);", p.name)
        elseif loss and p.kind == "dtype" then
            line("    if (s >= 0 && %s < 0 && pg_dtype_of(input) != PG_FLOAT64) %s = PG_FLOAT32;", p.name, p.name)
        end
    end
    line("}")
    return "s = pg_autocast_end(&cast, s);"
end

for _, row in ipairs(rows) do
    local list = optable.c_params(row)
    local name = row.symbol:sub(4)
    local out = doors
    local function line(format, ...) out[#out + 1] = "    " .. format:format(...) end
    out[#out + 1] = ""
    out[#out + 1] = (optable.prototype(row):gsub(";$", "")) .. "\n{"
    line("pg_door door;")
    line("int s = pg_door_enter(&door, %s);", quote(row.short))
    for _, result in ipairs(row.results) do
        if result.kind == "tensor" then
            line("if (s >= 0) s = pg_door_out(&door, %s, %s);", result.name, row.attrs.out and "true" or "false")
        elseif result.kind == "tensors" then
            line("if (s >= 0) s = out_list_check(%s);", result.name)
        else
            line("if (s >= 0 && !%s) s = wrong(%s, \"a place for the result\");", result.name, quote(result.name))
        end
    end
    checks(row, line)
    local autocast_end = autocast(row, line)
    if not has_body(row) then
        local base = row.base.symbol:sub(4)
        local args = names(list)
        line("pg_tensor tmp = PG_HANDLE;")
        line("if (s >= 0) s = pg_door_inplace_begin(&door, %s);", row.params[1].name)
        line("if (s >= 0) s = op_%s(&tmp, %s);", base, args)
        line("if (s >= 0) s = pg_door_inplace(&door, %s, &tmp);", row.params[1].name)
        line("pg_tensor_release(&tmp);")
    elseif row.attrs.out then
        local filled = {}
        for _, result in ipairs(row.results) do filled[#filled + 1] = result.name .. "->impl" end
        line("if (s >= 0 && (%s)) {", table.concat(filled, " || "))
        local temporaries, calls = {}, {}
        for k, item in ipairs(list) do
            if k <= #row.results then
                temporaries[#temporaries + 1] = ("tmp_%s = PG_HANDLE"):format(item[2])
                calls[#calls + 1] = "&tmp_" .. item[2]
            else
                calls[#calls + 1] = item[2]
            end
        end
        line("    pg_tensor %s;", table.concat(temporaries, ", "))
        line("    s = op_%s(%s);", name, table.concat(calls, ", "))
        for _, result in ipairs(row.results) do
            line("    if (s >= 0) s = pg_door_write_out(&door, %s, &tmp_%s);", result.name, result.name)
        end
        for _, result in ipairs(row.results) do line("    pg_tensor_release(&tmp_%s);", result.name) end
        line("} else if (s >= 0) {")
        line("    s = op_%s(%s);", name, names(list))
        line("}")
    else
        line("if (s >= 0) s = op_%s(%s);", name, names(list))
    end
    if autocast_end then line(autocast_end) end
    line("return pg_door_leave(&door, s);")
    out[#out + 1] = "}"
end
write("pg_doors.c", doors)

-- ---- pg_registry.c ----

local registry = {
    "/* Generated from perigee_api.h by engine/generate.lua. */",
    '#include "core/registry.h"',
    "",
    "#include <math.h>",
}

local function c_number(value)
    if value == math.huge then return "INFINITY" end
    if value == -math.huge then return "-INFINITY" end
    if value % 1 == 0 and math.abs(value) < 2 ^ 53 then return ("%d"):format(value) end
    return ("%.17g"):format(value)
end

-- The dtypes in the order of their numbers (PG_BOOL = 0 ...).
local DTYPE_NUMBER = {}
for k, dtype in ipairs {
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
} do
    DTYPE_NUMBER[dtype] = k - 1
end

local UNBOX_RESULT = {
    tensor = "out", tensors = "out_list", number = "out_number", int = "out_int", bool = "out_bool",
}

local function word_index(p, value)
    for k, word in ipairs(p.words) do
        if word == value then return k - 1 end
    end
end

for index, row in ipairs(rows) do
    local out, list, first = registry, optable.c_params(row), #row.results
    local setup, call = {}, {}
    local function line(format, ...) setup[#setup + 1] = "    " .. format:format(...) end
    for k, result in ipairs(row.results) do
        local n = quote(result.name)
        local how = UNBOX_RESULT[result.kind]
        line("%s%s = pg_unbox_%s(&u, %d, %s);", list[k][1], result.name, how, k - 1, n)
        call[#call + 1] = result.name
    end
    for k, p in ipairs(row.params) do
        local at, n, name = first + k - 1, quote(p.name), p.name
        local optional = (p.optional or p.has_default) and 1 or 0
        local fallback = p.default
        call[#call + 1] = name
        if p.kind == "tensor" then
            line("pg_tensor *%s = pg_unbox_tensor(&u, %d, %s, %d);", name, at, n, optional)
        elseif p.kind == "tensors" then
            line("int %s_n = 0;", name)
            line("const pg_tensor *const *%s = pg_unbox_tensors(&u, %d, %s, %d, &%s_n);", name, at, n, optional, name)
            call[#call + 1] = name .. "_n"
        elseif p.kind == "tensor_number" or p.kind == "number" or p.kind == "number_word" then
            local integral = type(fallback) == "number" and fallback % 1 == 0 and math.abs(fallback) < 2 ^ 53
            if type(fallback) == "number" then
                line("const pg_number %s_default = {%s, %s, %s};", name,
                    integral and "PG_NUMBER_INT" or "PG_NUMBER_FLOAT", integral and c_number(fallback) or "0",
                    c_number(fallback))
            end
            local default = type(fallback) == "number" and ("&%s_default"):format(name) or "NULL"
            if p.kind == "tensor_number" then
                line("pg_tensor *%s = pg_unbox_tensor_or_number(&u, %d);", name, at)
                line("pg_number %s_box;", name)
                line("const pg_number *%s_number = %s ? NULL : pg_unbox_number(&u, %d, %s, %d, &%s_box, %s);", name,
                    name, at, n, optional, name, default)
                call[#call + 1] = name .. "_number"
            elseif p.kind == "number" then
                line("pg_number %s_box;", name)
                line("const pg_number *%s = pg_unbox_number(&u, %d, %s, %d, &%s_box, %s);", name, at, n, optional, name,
                    default)
            else
                local words = {}
                for _, word in ipairs(p.words) do words[#words + 1] = quote(word) end
                line("static const char *const %s_words[] = {%s, NULL};", name, table.concat(words, ", "))
                line("int %s_word = pg_unbox_word_of_number(&u, %d, %s, %s_words, %d);", name, at, n, name,
                    type(fallback) == "string" and word_index(p, fallback) or -1)
                line("pg_number %s_box;", name)
                line("const pg_number *%s = %s_word >= 0 ? NULL : pg_unbox_number(&u, %d, %s, %d, &%s_box, %s);", name,
                    name, at, n, optional, name, default)
                call[#call + 1] = name .. "_word"
            end
        elseif p.kind == "int" then
            if p.optional then
                line("int64_t %s_box = 0;", name)
                line("const int64_t *%s = pg_unbox_int_or_none(&u, %d, %s, &%s_box);", name, at, n, name)
            else
                line("int64_t %s = pg_unbox_int(&u, %d, %s, %d, %s);", name, at, n, optional, c_number(fallback or 0))
            end
        elseif p.kind == "ints" then
            local words = "NULL"
            if p.words then
                local list_of = {}
                for _, word in ipairs(p.words) do list_of[#list_of + 1] = quote(word) end
                line("static const char *const %s_words[] = {%s, NULL};", name, table.concat(list_of, ", "))
                words = name .. "_words"
            end
            local values, count = "NULL", 0
            if type(fallback) == "number" then
                values, count = ("%s_default"):format(name), 1
                line("static const int64_t %s_default[] = {%s};", name, c_number(fallback))
            elseif type(fallback) == "table" then
                local items = {}
                for j, v in ipairs(fallback) do items[j] = c_number(v) end
                values, count = ("%s_default"):format(name), #fallback
                line("static const int64_t %s_default[] = {%s};", name, #items > 0 and table.concat(items, ", ") or "0")
            elseif type(fallback) == "string" then
                count = -1 - word_index(p, fallback)
            end
            line("int %s_n = %d;", name, count)
            line("const int64_t *%s = pg_unbox_ints(&u, %d, %s, %d, %s, &%s_n, %s);", name, at, n, optional, words,
                name, values)
            call[#call + 1] = name .. "_n"
        elseif p.kind == "float" then
            if p.optional then
                line("double %s_box = 0;", name)
                line("const double *%s = pg_unbox_float_or_none(&u, %d, %s, &%s_box);", name, at, n, name)
            else
                line("double %s = pg_unbox_float(&u, %d, %s, %d, %s);", name, at, n, optional, c_number(fallback or 0))
            end
        elseif p.kind == "bool" then
            if p.optional then
                line("int %s = pg_unbox_bool(&u, %d, %s, 1, %s);", name, at, n,
                    fallback == nil and "-1" or fallback and "1" or "0")
            else
                line("bool %s = pg_unbox_bool(&u, %d, %s, %d, %s) > 0;", name, at, n, optional, fallback and "1" or "0")
            end
        elseif p.kind == "dtype" then
            line("int %s = pg_unbox_dtype(&u, %d, %s, %d, %d);", name, at, n, optional,
                fallback and DTYPE_NUMBER[fallback] or -1)
        elseif p.kind == "word" then
            local words = {}
            for _, word in ipairs(p.words) do words[#words + 1] = quote(word) end
            line("static const char *const %s_words[] = {%s, NULL};", name, table.concat(words, ", "))
            line("int %s = pg_unbox_word(&u, %d, %s, %d, %s_words, %d);", name, at, n, optional, name,
                type(fallback) == "string" and word_index(p, fallback) or -1)
        else -- device, string
            line("const char *%s = pg_unbox_string(&u, %d, %s, %d, %s);", name, at, n, optional,
                fallback and quote(fallback) or "NULL")
        end
    end
    out[#out + 1] = ("\nstatic int invoke_%d(pg_boxed *boxes_, int boxes_n_)\n{"):format(index - 1)
    out[#out + 1] = ("    pg_unbox u = pg_unbox_begin(%s, boxes_, boxes_n_, %d);"):format(
        quote(row.short), first + #row.params)
    for _, item in ipairs(setup) do out[#out + 1] = item end
    out[#out + 1] = "    if (u.status < 0) return u.status;"
    out[#out + 1] = ("    return %s(%s);\n}"):format(row.symbol, table.concat(call, ", "))
end

registry[#registry + 1] = "\nconst pg_op_row pg_op_rows[] = {"
for index, row in ipairs(rows) do
    registry[#registry + 1] = ("    {%s, %s,\n     %s,\n     %s, invoke_%d},"):format(quote(row.name),
        quote(row.symbol), quote(row.signature), autocast_of(row), index - 1)
end
registry[#registry + 1] = "};"
registry[#registry + 1] = ("const int pg_op_rows_n = %d;"):format(#rows)
write("pg_registry.c", registry)
