local optable = require "perigee.optable"

local MARK = "/* ======== the op table ======== */\n"

local function parse(text)
    return optable.parse(MARK .. text, "test.h", true)
end

local function refuses(text, message)
    local ok, err = pcall(parse, text)
    assert.is_false(ok, "expected a failure with: " .. message)
    assert.is_truthy(tostring(err):find(message, 1, true), "expected '" .. message .. "', got: " .. tostring(err))
end

describe("optable", function()
    it("reads a row", function()
        local rows = parse [[
/* ---- pointwise ---- */
/* add(input: Tensor, other: Tensor|number, *, alpha: number = 1) -> Tensor   [method, operator +, out, grad2]
 * The sum
 * of both. */
int pg_add(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number,
           const pg_number *alpha);]]
        assert.are.equal(1, #rows)
        local row = rows[1]
        assert.are.equal("add", row.name)
        assert.are.equal("pg_add", row.symbol)
        assert.are.equal("pointwise", row.section)
        assert.are.equal("The sum\nof both.", row.doc)
        assert.are.equal(3, #row.params)
        assert.are.equal("tensor_number", row.params[2].kind)
        assert.is_true(row.params[3].option)
        assert.are.equal(1, row.params[3].default)
        assert.are.equal("+", row.attrs.operator)
        assert.is_true(row.attrs.out)
    end)

    it("reads a signature over several lines, words, sizes and defaults", function()
        local rows = parse [[
/* nn.functional.conv2d(input: Tensor, weight: Tensor, bias: Tensor? = nil, stride: int[2] = 1,
 *   padding: int[2]|'valid'|'same' = 0, dilation: int[] = (1, 2), groups: int = 1) -> Tensor   [grad2, autocast low,
 *   no cuda "needs cuDNN, or (one day) not"] */
int pg_conv2d(pg_tensor *out, const pg_tensor *input, const pg_tensor *weight, const pg_tensor *bias,
              const int64_t *stride, int stride_n, const int64_t *padding, int padding_n,
              const int64_t *dilation, int dilation_n, int64_t groups);]]
        local row = rows[1]
        assert.are.equal("nn.functional", row.namespace)
        assert.are.equal("conv2d", row.short)
        assert.are.equal(2, row.params[4].size)
        assert.are.same({ "valid", "same" }, row.params[5].words)
        assert.are.same({ 1, 2 }, row.params[6].default)
        assert.are.equal("low", row.attrs.autocast)
        assert.are.equal("needs cuDNN, or (one day) not", row.attrs.no_cuda)
    end)

    it("reads several results, lists and self", function()
        local rows = parse [[
/* max(input: Tensor, dim: int) -> (values: Tensor, indices: Tensor)   [method, out, grad2] */
int pg_max_dim(pg_tensor *values, pg_tensor *indices, const pg_tensor *input, int64_t dim);
/* split(input: Tensor, size: int) -> Tensor[]   [view] */
int pg_split(pg_tensor_list *out, const pg_tensor *input, int64_t size);
/* zero_(input: Tensor) -> self   [method] */
int pg_zero_(pg_tensor *input);
/* allclose(a: Tensor, b: Tensor, eps: float? = nil, k: int? = nil, up: bool? = nil) -> bool   [] */
int pg_allclose(bool *out, const pg_tensor *a, const pg_tensor *b, const double *eps, const int64_t *k, int up);]]
        assert.are.equal("indices", rows[1].results[2].name)
        assert.are.equal("tensors", rows[2].results[1].kind)
        assert.is_true(rows[3].returns_self)
        assert.are.equal("bool", rows[4].results[1].kind)
    end)

    it("prints the prototype that a signature asks for", function()
        refuses([[
/* neg(input: Tensor, *, dtype: dtype? = nil) -> Tensor   [method] */
int pg_neg(pg_tensor *out, const pg_tensor *input);]],
            "int pg_neg(pg_tensor *out, const pg_tensor *input, int dtype);")
    end)

    it("names the line and the row", function()
        refuses("/* ---- a ---- */\n\n/* f(x: Tensr) -> Tensor   [] */\nint pg_f(pg_tensor *out);",
            "test.h:4: f: unknown type 'Tensr'")
    end)

    it("refuses what breaks the grammar", function()
        refuses("/* f(x: Tensor) -> Tensor   [methd] */\nint pg_f(pg_tensor *out, const pg_tensor *x);",
            "unknown attribute 'methd'")
        refuses("/* f(x: Tensor) -> Tensor */\nint pg_f(pg_tensor *out, const pg_tensor *x);",
            "[attributes] must follow")
        refuses("/* f(x: Tensor) [] */\nint pg_f(pg_tensor *out, const pg_tensor *x);", "'->'")
        refuses("/* f(x: Tensor?) -> Tensor   [] */\nint pg_f(pg_tensor *out, const pg_tensor *x);", "needs a default")
        refuses("/* f(x: int = 1.5) -> Tensor   [] */\nint pg_f(pg_tensor *out, int64_t x);", "does not fit the type")
        refuses("/* f(x: 'a'|'b' = 'c') -> Tensor   [] */\nint pg_f(pg_tensor *out, int x);", "does not fit the type")
        refuses("/* f(x: Tensor) -> Tensor   [] */", "a prototype")
        refuses("/* f(x: Tensor) -> Tensor   [] */\nint pg_f(pg_tensor *out, const pg_tensor *x);\n"
            .. "/* g(x: Tensor) -> Tensor   [] */\nint pg_f(pg_tensor *out, const pg_tensor *x);", "declared twice")
        refuses("int pg_f(pg_tensor *out);", "expected a comment")
        refuses("/* f(x: int, out: int) -> Tensor   [] */\nint pg_f(pg_tensor *out, int64_t x, int64_t out);",
            "both a parameter and a result")
    end)

    it("refuses overloads that a call cannot tell apart", function()
        refuses([[
/* f(x: Tensor, n: int = 1) -> Tensor   [] */
int pg_f(pg_tensor *out, const pg_tensor *x, int64_t n);
/* f(x: Tensor, s: float = 1) -> Tensor   [] */
int pg_f2(pg_tensor *out, const pg_tensor *x, double s);]], "cannot tell apart")
        refuses([[
/* f(x: Tensor) -> Tensor   [] */
int pg_f(pg_tensor *out, const pg_tensor *x);
/* f(x: Tensor, y: Tensor? = nil) -> Tensor   [] */
int pg_f2(pg_tensor *out, const pg_tensor *x, const pg_tensor *y);]], "cannot tell apart")
        assert.are.equal(3, #parse [[
/* f(x: Tensor) -> Tensor   [] */
int pg_f(pg_tensor *out, const pg_tensor *x);
/* f(x: Tensor, n: int) -> Tensor   [] */
int pg_f2(pg_tensor *out, const pg_tensor *x, int64_t n);
/* f(x: Tensor, y: Tensor) -> Tensor   [] */
int pg_f3(pg_tensor *out, const pg_tensor *x, const pg_tensor *y);]])
    end)

    it("checks in-place twins and aliases against what they name", function()
        refuses([[
/* f_(x: Tensor) -> self   [inplace of pg_f] */
int pg_f_(pg_tensor *x);]], "pg_f, which is not declared")
        refuses([[
/* f(x: Tensor, k: int) -> Tensor   [] */
int pg_f(pg_tensor *out, const pg_tensor *x, int64_t k);
/* f_(x: Tensor) -> self   [inplace of pg_f] */
int pg_f_(pg_tensor *x);]], "the parameters differ")
        local rows = parse [[
/* absolute(x: Tensor) -> Tensor   [same as pg_abs] */
/* abs(x: Tensor) -> Tensor   [method, grad2] */
int pg_abs(pg_tensor *out, const pg_tensor *x);]]
        assert.is_true(rows[1].attrs.grad2)
        assert.are.equal("pg_abs", rows[1].symbol)
    end)
end)

describe("the header", function()
    local ffi = require "ffi"
    local core = require "perigee.ffi"

    it("declares nothing that the library lacks", function()
        local missing, n = {}, 0
        local text = core.header:gsub("/%*.-%*/", "")
        for symbol in text:gmatch("(pg_[%w_]+)%s*%(") do
            n = n + 1
            if not pcall(function() return core.C[symbol] end) then missing[#missing + 1] = symbol end
        end
        assert.is_true(n > 100)
        assert.are.same({}, missing)
    end)

    it("has rows whose prototypes and overloads are right", function()
        assert.is_true(#optable.parse(core.header, "perigee_api.h", true) > 50)
    end)

    it("gives each row to the registry", function()
        local n = 0
        local known = {}
        for k = 0, core.C.pg_op_count() - 1 do
            known[ffi.string(core.C.pg_op_symbol(k))] = ffi.string(core.C.pg_op_signature(k))
        end
        for _, row in ipairs(core.rows) do
            if not row.alias then
                n = n + 1
                assert.are.equal(row.signature, known[row.symbol])
            end
        end
        assert.are.equal(n, core.C.pg_op_count())
        assert.is_true(core.C.pg_op_signature(-1) == nil and core.C.pg_op_symbol(n) == nil)
    end)
end)
