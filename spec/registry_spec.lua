-- Ops by name with boxed arguments, against the same ops through their wrappers.

local ffi = require "ffi"
local pg = require "perigee"
local core = require "perigee.ffi"
local wrapper = require "perigee.wrapper"
local samples = require "spec.support.samples"

local C = core.C

local function boxes(n)
    return ffi.new("pg_boxed[?]", n)
end

local function handle()
    return ffi.new("pg_tensor", C.PG_HANDLE_MAGIC)
end

local function message()
    return ffi.string(C.pg_last_error())
end

local function tensor_box(box, t)
    box.kind, box.as.tensor = C.PG_BOX_TENSOR, t
end

describe("pg_call", function()
    local a, b = pg.tensor { 1, 2 }, pg.tensor { 3, 4 }

    it("takes defaults for what is missing", function()
        local args, out = boxes(3), handle()
        tensor_box(args[0], out)
        tensor_box(args[1], a)
        tensor_box(args[2], b)
        assert.are.equal(0, C.pg_call("pg_add", args, 3))
        assert.are.same({ 4, 6 }, out:totable())
    end)

    it("takes numbers and integers for numbers", function()
        local args, out = boxes(4), handle()
        tensor_box(args[0], out)
        tensor_box(args[1], a)
        args[2].kind, args[2].as.i = C.PG_BOX_INT, 10
        args[3].kind, args[3].as.f = C.PG_BOX_FLOAT, 0.5
        assert.are.equal(0, C.pg_call("pg_add", args, 4))
        assert.are.same({ 6, 7 }, out:totable())
    end)

    it("takes lists of integers and lists as results", function()
        local args, out = boxes(3), ffi.new("pg_tensor_list", C.PG_LIST_MAGIC)
        local sizes = ffi.new("int64_t[2]", 1, 1)
        args[0].kind, args[0].as.list = C.PG_BOX_LIST, out
        tensor_box(args[1], a)
        args[2].kind, args[2].n, args[2].as.ints = C.PG_BOX_INTS, 2, sizes
        assert.are.equal(0, C.pg_call("pg_split_sections", args, 3))
        assert.are.equal(2, out.n)
        C.pg_tensor_list_release(out)
    end)

    it("refuses what does not fit, naming op and argument", function()
        local args, out = boxes(6), handle()
        assert.are.equal(C.PG_ERROR, C.pg_call("pg_nothing", args, 0))
        assert.is_truthy(message():find("no op has the symbol 'pg_nothing'", 1, true))
        assert.are.equal(C.PG_ERROR, C.pg_call(nil, args, 0))
        assert.are.equal(C.PG_ERROR, C.pg_call("pg_add", nil, 2))
        tensor_box(args[0], out)
        assert.are.equal(C.PG_ERROR, C.pg_call("pg_add", args, 2))
        assert.is_truthy(message():find("add: input: expected a tensor, got nothing", 1, true))
        tensor_box(args[1], a)
        args[2].kind = C.PG_BOX_STRING
        assert.are.equal(C.PG_ERROR, C.pg_call("pg_add", args, 3))
        assert.is_truthy(message():find("add: other: expected a number, got a string", 1, true))
        assert.are.equal(C.PG_ERROR, C.pg_call("pg_add", args, 6))
        assert.is_truthy(message():find("takes 4 boxes, got 6", 1, true))
        tensor_box(args[1], handle())
        args[2].kind, args[2].as.i = C.PG_BOX_INT, 10
        assert.are.equal(C.PG_ERROR, C.pg_call("pg_add", args, 3))
        assert.is_truthy(message():find("freed", 1, true))
    end)

    it("gives what the wrapper gives, for each op that tensors alone call", function()
        local compared = 0
        for _, row in ipairs(core.rows) do
            local simple = #row.results == 1 and row.results[1].kind == "tensor" and not row.alias
                and not row.attrs.random
            for _, p in ipairs(row.params) do
                if p.kind ~= "tensor" and p.kind ~= "tensor_number" and not p.has_default then simple = false end
            end
            for _, sample in ipairs(simple and samples[row.symbol] or {}) do
                if not sample.call then
                    local args, out = boxes(1 + #sample), handle()
                    tensor_box(args[0], out)
                    for k, t in ipairs(sample) do tensor_box(args[k], t) end
                    local s = C.pg_call(row.symbol, args, 1 + #sample)
                    assert.is_true(s >= 0, row.symbol)
                    assert.are.same(wrapper.of_rows({ row })(unpack(sample)):totable(), out:totable(), row.symbol)
                    compared = compared + 1
                end
            end
        end
        assert.is_true(compared > 0)
    end)
end)
