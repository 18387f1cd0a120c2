local pg = require "perigee"
local numbers = require "spec.support.numbers"
local shell = require "spec.build.shell"

local close, refuses = numbers.close, numbers.refuses
local ALL = { "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool" }

describe("making tensors", function()
    it("of one value, in every dtype", function()
        for _, name in ipairs(ALL) do
            local dtype = pg[name]
            local one, zero = 1, 0
            if name == "bool" then one, zero = true, false end
            assert.are.same({ { zero, zero }, { zero, zero } }, pg.zeros(2, 2, { dtype = dtype }):totable())
            assert.are.same({ one, one }, pg.ones({ 2 }, { dtype = dtype }):totable())
            assert.are.same({ one, one, one }, pg.full({ 3 }, 1, { dtype = dtype }):totable())
            assert.are.same({ { one, zero }, { zero, one } }, pg.eye(2, { dtype = dtype }):totable())
            assert.are.equal(dtype, pg.zeros_like(pg.ones(1), { dtype = dtype }).dtype)
            assert.are.equal(dtype, pg.empty(3, { dtype = dtype }).dtype)
            -- enough for several threads
            assert.are.equal(100001, pg.ones(100001, { dtype = dtype }):to(pg.int64):sum():item())
        end
    end)

    it("takes the default dtype from numbers and bool from booleans", function()
        assert.are.equal(pg.float32, pg.full({ 2 }, 7).dtype)
        assert.are.equal(pg.bool, pg.full({ 2 }, true).dtype)
        assert.are.equal(0, #{ unpack(pg.full({}, 3).shape) })
    end)

    it("counts", function()
        assert.are.same({ 0, 1, 2 }, pg.arange(3):totable())
        assert.are.equal(pg.int64, pg.arange(3).dtype)
        assert.are.same({ 9, 6, 3 }, pg.arange(9, 2, -3):totable())
        close(pg.arange(0, 1, 0.25), pg.tensor { 0, 0.25, 0.5, 0.75 }, 0)
        assert.are.equal(pg.float32, pg.arange(0, 1, 0.25).dtype)
        assert.are.equal(10, pg.arange(1, 2, 0.1, { dtype = pg.float64 }):numel())
        assert.are.equal(0, pg.arange(0):numel())
        assert.are.equal(99999, pg.arange(100000)[99999]:item())
        assert.are.same({ 0, 1, 2 }, pg.arange(3, { dtype = pg.bfloat16 }):totable())
        refuses("arange", function() return pg.arange(0, 5, 0) end)
        refuses("arange", function() return pg.arange(5, 0) end)
    end)

    it("spaces evenly, both ends exact", function()
        close(pg.linspace(0, 1, 5), pg.tensor { 0, 0.25, 0.5, 0.75, 1 }, 0)
        assert.are.equal(0.3, pg.linspace(0.1, 0.3, 7, { dtype = pg.float64 })[6]:item())
        assert.are.same({ 2 }, pg.linspace(2, 5, 1):totable())
        assert.are.equal(0, pg.linspace(2, 5, 0):numel())
        refuses("linspace", function() return pg.linspace(0, 1, -1) end)
    end)

    it("like another, or with gradients", function()
        local x = pg.ones(2, 3, { dtype = pg.float64 })
        assert.are.equal(pg.float64, x:new_zeros(4).dtype)
        assert.are.same({ 5, 5 }, x:new_full({ 2 }, 5):totable())
        assert.are.same({ { 2, 2, 2 }, { 2, 2, 2 } }, pg.full_like(x, 2):totable())
        assert.is_true(pg.zeros(2, { requires_grad = true }).requires_grad)
        refuses("floating", function() return pg.zeros(2, { dtype = pg.int64, requires_grad = true }) end)
    end)

    it("refuses sizes that cannot be", function()
        refuses("zeros", function() return pg.zeros(-1) end)
        refuses("empty", function() return pg.empty(2 ^ 40, 2 ^ 40) end)
        refuses("eye", function() return pg.eye(-1) end)
        refuses("zeros", function() return pg.zeros(2, { device = "moon" }) end)
    end)
end)

describe("conversions", function()
    it("truncate, wrap, saturate and keep NaN out of integers", function()
        local x = pg.float64 { 2.9, -2.9, 300.5, -1.5, 0 / 0, 1e30, -1e30 }
        assert.are.same({ 2, -2, 300, -1, 0 }, { unpack(x:to(pg.int64):totable(), 1, 5) })
        assert.are.same({ 2, -2, 300, -1, 0, 2147483647, -2147483648 }, x:to(pg.int32):totable())
        assert.are.same({ 2, 254, 44, 255, 0 }, { unpack(x:to(pg.uint8):totable(), 1, 5) })
        assert.are.same({ true, true, true, true, true, true, true }, x:to(pg.bool):totable())
        for _, from in ipairs { pg.float32, pg.float64 } do
            local big = pg.tensor({ 1e30, -1e30 }, { dtype = from }):to(pg.int64):totable()
            assert.are.same({ "9223372036854775807LL", "-9223372036854775808LL" }, { tostring(big[1]),
                tostring(big[2]) })
        end
    end)

    it("round halves to even, with subnormals and infinities", function()
        local x = pg.float32 { 65504, 65519, 65520, 6e-8, 2.9e-8, 1 + 2 ^ -11, 1 + 3 * 2 ^ -11, 1 / 3 }
        close(x:to(pg.float16):to(pg.float64),
            pg.float64 { 65504, 65504, math.huge, 2 ^ -24, 0, 1, 1 + 2 ^ -9, 0.333251953125 }, 0)
        local y = pg.float32 { 1 + 2 ^ -8, 1 + 3 * 2 ^ -8, 3.4e38, 1e-40 }
        close(y:to(pg.bfloat16):to(pg.float64), pg.float64 { 1, 1 + 2 ^ -6, math.huge, 1.0010e-40 }, 1e-3)
        for _, half in ipairs { pg.float16, pg.bfloat16 } do
            local n = pg.tensor { 0 / 0 }:to(half):to(pg.float32):item()
            assert.is_true(n ~= n)
            local z = pg.arange(-2000, 2000):to(pg.float32) / 16
            local there = z:to(half)
            close(there:to(pg.float32):to(half):to(pg.float32), there:to(pg.float32),
                0)     -- exact on its own values
        end
    end)

    it("of any layout, transposed blocks included", function()
        for _, name in ipairs(ALL) do
            for _, shape in ipairs { { 33, 47 }, { 3, 64, 80 }, { 17, 5 } } do
                local x = pg.arange(shape[1] * shape[2] * (shape[3] or 1)):remainder(97):reshape(shape):to(pg[name])
                local swapped = x:transpose(-1, -2):contiguous()
                assert.is_true(pg.equal(swapped:transpose(-1, -2), x), name)
                local order = #shape == 3 and { 2, 0, 1 } or { 1, 0 }
                local moved = x:permute(order):contiguous():to(pg.float64)
                assert.is_true(pg.equal(moved, x:to(pg.float64):permute(order)), name)
            end
        end
        local rows, columns = 2048, 4096
        if shell.watches_races then rows, columns = 600, 1300 end
        local wide = pg.arange(rows * columns):view(rows, columns):to(pg.float32)
        local turned = wide:t():contiguous()
        for _, at in ipairs { { 0, 0 }, { 1, 0 }, { columns - 1, rows - 1 }, { 1234, 567 } } do
            assert.are.equal(at[2] * columns + at[1], turned[at]:item())
        end
        assert.is_true(pg.equal(turned:t():contiguous(), wide))
    end)
end)
