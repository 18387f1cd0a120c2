local pg = require "perigee"
local numbers = require "spec.support.numbers"

local function refuses(f, message)
    local ok, err = numbers.settled(f)
    assert.is_false(ok, "expected an error with: " .. message)
    assert.is_truthy(tostring(err):find(message, 1, true), "expected '" .. message .. "', got: " .. tostring(err))
end

local function counting(...)
    local n, list = 1, {}
    for _, size in ipairs({ ... }) do n = n * size end
    for k = 1, n do list[k] = k - 1 end
    return pg.tensor(list):reshape({ ... })
end

local function shape(t) return { unpack(t.shape) } end

describe("x[...]", function()
    local x = counting(2, 3, 4)

    it("selects", function()
        assert.are.same({ 4, 5, 6, 7 }, x[0][1]:totable())
        assert.are.same({ 20, 21, 22, 23 }, x[{ -1, -1 }]:totable())
        assert.are.equal(23, x[{ 1, 2, 3 }]:item())
        assert.are.equal(23, x[{ 1LL, 2LL, 3LL }]:item())
        assert.is_true(x[0]:same_storage(x))
    end)

    it("slices", function()
        assert.are.same({ { 5, 6 }, { 9, 10 } }, x[{ 0, { 1, 3 }, { 1, -1 } }]:totable())
        assert.are.same({ 0, 2 }, x[{ 0, 0, { nil, nil, 2 } }]:totable())
        assert.are.same({ 2, 3 }, x[{ 0, 0, { 2 } }]:totable())
        assert.are.same({ 0, 1 }, x[{ 0, 0, { nil, 2 } }]:totable())
        assert.are.same({ 2, 3, 0 }, shape(x[{ {}, {}, { 3, 1 } }]))
        assert.are.same({ 2, 3, 4 }, shape(x[{ {}, { -100, 100 } }]))
        assert.are.same({ 1, 3, 4 }, shape(x[{ { 1, nil } }]))
    end)

    it("takes all, ellipsis and newaxis", function()
        assert.are.same({ 2, 3 }, shape(x[{ ":", ":", 0 }]))
        assert.are.same({ 2, 3 }, shape(x[{ "...", 0 }]))
        assert.are.same({ 3, 4 }, shape(x[{ 0, "..." }]))
        assert.are.same({ 2, 1, 3, 4 }, shape(x[{ {}, pg.newaxis }]))
        assert.are.same({ 1, 2, 3, 4 }, shape(x[pg.newaxis]))
        assert.are.same({ 2, 3, 4, 1 }, shape(x[{ "...", pg.newaxis }]))
        assert.are.same({ 2, 3, 4 }, shape(x["..."]))
        assert.are.same({ 2, 3, 4 }, shape(x[{}]))
        assert.is_true(x[":"]:same_storage(x) and x[":"] ~= x)
    end)

    it("takes tensors of integers", function()
        assert.are.same({ 3, 3, 4 }, shape(x[pg.int64 { 1, 0, 1 }]))
        assert.are.same({ 2, 2, 3, 4 }, shape(x[pg.int64 { { 0, 1 }, { 1, 0 } }]))
        assert.are.same({ { 9, 1 }, { 21, 13 } }, x[{ {}, pg.int64 { 2, 0 }, pg.int64 { 1, 1 } }]:totable())
        assert.are.same({ 23 }, x[{ pg.int64 { -1 }, pg.int64 { -1 }, pg.int64 { -1 } }]:totable())
        assert.are.equal(23, x[{ pg.tensor(1LL), pg.tensor(2LL), pg.tensor(3LL) }]:item())
    end)

    it("puts the indexed dimensions where PyTorch does", function()
        -- Neighbours stay in place; apart, they go to the front. A number selects first.
        assert.are.same({ 2, 2 }, shape(x[{ {}, pg.int64 { 0, 1 }, pg.int64 { 0, 1 } }]))
        local y = counting(2, 3, 4, 5)
        assert.are.same({ 6, 2, 4 }, shape(y[{ {}, pg.int64 { 0, 1, 2, 0, 1, 2 }, {}, pg.int64 { 0, 1, 2, 3, 4, 0 } }]))
        assert.are.same({ 2, 6, 5 }, shape(y[{ {}, pg.int64 { 0, 1, 2, 0, 1, 2 }, pg.int64 { 0, 1, 2, 3, 0, 0 } }]))
        assert.are.same({ 3, 2, 5 }, shape(y[{ 0, {}, pg.int64 { 0, 1 } }]))
        assert.are.same({ 2, 1, 3, 5 }, shape(y[{ {}, pg.newaxis, {}, 0 }]))
        assert.are.same({ 3, 2, 4, 5 }, shape(y[{ pg.int64 { 0, 1, 1 }, { 0, 2 } }]))
    end)

    it("takes tensors of booleans", function()
        local mask = pg.bool { { true, false, true }, { false, true, false } }
        assert.are.same({ { 0, 1, 2, 3 }, { 8, 9, 10, 11 }, { 16, 17, 18, 19 } }, x[mask]:totable())
        assert.are.same({ 2, 1, 4 }, shape(x[{ {}, pg.bool { false, true, false } }]))
        assert.are.same({ 0, 4 }, shape(x[pg.bool { { false, false, false }, { false, false, false } }]))
        assert.are.same({ 1, 2, 3, 4 }, shape(x[pg.tensor(true)]))
        assert.are.same({ 0, 2, 3, 4 }, shape(x[pg.tensor(false)]))
    end)

    it("says what is wrong", function()
        refuses(function() return x[2] end, "out of bounds")
        refuses(function() return x[{ 0, 0, 0, 0 }] end, "too many indices for a tensor of dimension 3: 4")
        refuses(function() return pg.tensor(1)[0] end, "too many indices for a tensor of dimension 0")
        refuses(function() return x[1.5] end, "expected an integer, got 1.5")
        refuses(function() return x[{ nil, 0 }] end, "nil at [1]")
        refuses(function() return x[{ 0, nil, 0 }] end, "nil at [2]")
        refuses(function() return x[{ a = 1 }] end, "the key [a]")
        refuses(function() return x[{ { 0, 1, 1, 1 } }] end, "pg.int64{...}")
        refuses(function() return x[{ { "a" } }] end, "a slice's bounds are integers or nil")
        refuses(function() return x[{ { 0, 2, 0 } }] end, "step")
        refuses(function() return x[{ "..", 0 }] end, "unknown word '..'")
        refuses(function() return x[{ "...", "..." }] end, "only once")
        refuses(function() return x[pg.tensor({ 1 })] end, "int64 or bool, got pg.float32")
        refuses(function() return x[pg.int64 { 0, 2 }] end, "out of range")
        refuses(function() return x[pg.bool { true }] end, "index")
        refuses(function() return x[pg.float32] end, "expected a number, a slice")
    end)
end)

describe("x[...] = value", function()
    it("writes numbers, tensors and tables through views", function()
        local x = counting(2, 3)
        x[0] = 7
        assert.are.same({ { 7, 7, 7 }, { 3, 4, 5 } }, x:totable())
        x[{ {}, 0 }] = pg.tensor({ 1, 2 })
        assert.are.same({ { 1, 7, 7 }, { 2, 4, 5 } }, x:totable())
        x[{ 1, { 1, 3 } }] = { 8, 9 }
        assert.are.same({ { 1, 7, 7 }, { 2, 8, 9 } }, x:totable())
        x[{}] = pg.tensor({ 0, 0, 1 })
        assert.are.same({ { 0, 0, 1 }, { 0, 0, 1 } }, x:totable())
        x[{ 0, 0 }] = pg.tensor({ { 5 } })
        assert.are.equal(5, x[0][0]:item())
        x["..."] = true
        assert.are.same({ { 1, 1, 1 }, { 1, 1, 1 } }, x:totable())
        local ids = pg.int64 { 1, 2, 3 }
        ids[1] = 9007199254740993LL
        assert.is_true(ids[1]:item() == 9007199254740993LL)
    end)

    it("writes through tensors of integers and booleans", function()
        local x = counting(3, 2)
        x[pg.int64 { 0, 2 }] = 9
        assert.are.same({ { 9, 9 }, { 2, 3 }, { 9, 9 } }, x:totable())
        x[x:to(pg.bool)] = pg.tensor(1)
        assert.are.same({ { 1, 1 }, { 1, 1 }, { 1, 1 } }, x:totable())
        x[{ {}, pg.int64 { 1 } }] = pg.tensor({ { 5 }, { 6 }, { 7 } })
        assert.are.same({ { 1, 5 }, { 1, 6 }, { 1, 7 } }, x:totable())
        x[pg.bool { { true, false }, { false, false }, { false, true } }] = { 10, 20 }
        assert.are.same({ { 10, 5 }, { 1, 6 }, { 1, 20 } }, x:totable())
    end)

    it("takes part in gradients", function()
        local w = pg.tensor({ 1, 2, 3 }, { requires_grad = true })
        local v = pg.tensor({ 10 }, { requires_grad = true })
        local y = w * 2
        y[{ { 1, 2 } }] = v * 3
        y:sum():backward()
        assert.are.same({ 2, 0, 2 }, w.grad:totable())
        assert.are.same({ 3 }, v.grad:totable())
        refuses(function() w[0] = 5 end, "leaf")
    end)

    it("refuses what does not fit", function()
        local x = counting(2, 3)
        refuses(function() x[0] = pg.tensor({ 1, 2 }) end, "broadcast")
        refuses(function() x[0] = "a" end, "expected a Tensor, a number or a table")
        refuses(function() x[0] = nil end, "got nil")
        refuses(function() x[5] = 1 end, "out of bounds")
        assert.are.same({ { 0, 1, 2 }, { 3, 4, 5 } }, x:totable())
    end)
end)
