-- Joining, repeating, reordering. Values and gradients against PyTorch are in spec/fixtures.

local pg = require "perigee"
local F = pg.nn.functional

local function refused(pattern, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok, "was not refused: " .. pattern)
    assert.is_truthy(message:find(pattern, 1, true), message)
end

describe("cat and stack", function()
    it("promote, skip the empty, and give gradients in each one's dtype", function()
        local a = pg.tensor({ 1, 2 }, { requires_grad = true })
        local b = pg.tensor({ 3 }, { dtype = pg.float64, requires_grad = true })
        local y = pg.cat { a, pg.int64 { 7 }, pg.zeros(0), b }
        assert.equal(pg.float64, y.dtype)
        assert.same({ 1, 2, 7, 3 }, y:detach():totable())
        y:mul(y):sum():backward()
        assert.same({ 2, 4 }, a.grad:totable())
        assert.equal(pg.float32, a.grad.dtype)
        assert.same({ 6 }, b.grad:totable())
    end)

    it("take one tensor several times", function()
        local w = pg.ones(2, { requires_grad = true })
        pg.cat({ w, w, w }):sum():backward()
        assert.same({ 3, 3 }, w.grad:totable())
    end)

    it("take more tensors than a node has room for inline", function()
        local list, w = {}, pg.ones(3, { requires_grad = true })
        for k = 1, 100 do list[k] = w * k end
        pg.stack(list):sum():backward()
        assert.same({ 5050, 5050, 5050 }, w.grad:totable())
        w.grad = nil
        local parts = pg.cat(list):split(1)
        assert.equal(300, #parts)
        parts[1]:sum():backward()
        assert.same({ 1, 0, 0 }, w.grad:totable())
    end)

    it("refuse what does not fit, and say which", function()
        local x = pg.zeros(2, 3)
        refused("non-empty list", pg.cat, {})
        refused("expected size 2 but got 3 in dimension 0 of tensor 1", pg.cat, { x, pg.zeros(3, 3) }, 1)
        refused("[2, 3] at entry 0 and [3] at entry 1", pg.cat, { x, pg.zeros(3) })
        refused("no dimensions", pg.cat, { pg.tensor(1) })
        refused("range of [-2, 1], but got 2", pg.cat, { x, x }, 2)
        refused("[2, 3] at entry 0 and [3, 2] at entry 1", pg.stack, { x, x:t() })
        refused("range of [-3, 2], but got 3", pg.stack, { x, x }, 3)
        refused("freed", function()
            local y = pg.zeros(2, 3)
            y:free()
            return pg.cat { x, y }
        end)
    end)

    it("write into out", function()
        local out = pg.zeros(0)
        pg.cat({ pg.ones(2), pg.zeros(1) }, { out = out })
        assert.same({ 1, 1, 0 }, out:totable())
    end)
end)

describe("repetition and order", function()
    it("give copies, even where nothing changes", function()
        local x = pg.arange(3)
        for name, y in pairs {
            repeat_ = x:repeat_(1), tile = x:tile(1), roll = x:roll(3), flip = x:flip({}),
            interleave = x:repeat_interleave(1),
            tril = x:view(1, 3):tril(5), rolled = x:roll(0, 0),
        } do
            assert.is_false(y:same_storage(x), name)
            assert.same({ 0, 1, 2 }, y:flatten():totable(), name)
        end
    end)

    it("work in any number of dimensions", function()
        local x = pg.ones(unpack { 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2 })
        local sizes = {}
        for k = 1, 16 do sizes[k] = k == 5 and 3 or 1 end
        assert.equal(12, x:repeat_(sizes):numel())
        assert.equal(16, x:flip(1, 15).ndim)
        assert.equal(8, x:roll({ 1, 1 }, { 1, 15 }):repeat_interleave(2, 1):numel())
    end)

    it("of nothing is nothing", function()
        assert.equal(0, pg.zeros(0, 3):flip(0, 1):numel())
        assert.equal(0, pg.zeros(0, 3):roll(2, 0):numel())
        assert.same({ 0, 6 }, { unpack(pg.zeros(0, 3):repeat_(5, 2).shape) })
        assert.same({ 0 }, { unpack(pg.ones(3):repeat_(0).shape) })
        assert.equal(0, pg.zeros(2, 0, 3):tril():numel())
        assert.equal(0, pg.ones(3):repeat_interleave(0):numel())
    end)

    it("refuse what does not fit", function()
        local x = pg.zeros(2, 3)
        refused("cannot be smaller than the number of dimensions", x.repeat_, x, 2)
        refused("must not be negative", x.repeat_, x, 2, -1)
        refused("more elements than can be counted", x.repeat_, x, 2 ^ 40, 2 ^ 40)
        refused("too many", pg.zeros(2 ^ 10).repeat_interleave, pg.zeros(2 ^ 10), 2 ^ 60)
        refused("dim 0 appears multiple times", x.flip, x, 0, -2)
        refused("must align", x.roll, x, { 1, 2 }, { 0 })
        refused("at least 2 dimensions", pg.zeros(3).tril, pg.zeros(3))
        refused("range", x.flip, x, 2)
    end)
end)

describe("one_hot", function()
    it("gives int64 rows, and infers the number of classes", function()
        local y = F.one_hot(pg.int64 { { 0, 2 } })
        assert.equal(pg.int64, y.dtype)
        assert.same({ { { 1, 0, 0 }, { 0, 0, 1 } } }, y:totable())
        assert.same({ 3, 5 }, { unpack(F.one_hot(pg.int64 { 0, 1, 2 }, 5).shape) })
        assert.same({ 0, 5 }, { unpack(F.one_hot(pg.zeros(0, { dtype = pg.int64 }), 5).shape) })
    end)

    it("refuses ids that are none", function()
        refused("smaller than num_classes (2), got 2", F.one_hot, pg.int64 { 0, 2 }, 2)
        refused("must not be negative, got -1", F.one_hot, pg.int64 { -1 }, 2)
        refused("expected int64 class ids, got float32", F.one_hot, pg.tensor { 1 })
        refused("cannot be inferred from an empty tensor", F.one_hot, pg.zeros(0, { dtype = pg.int64 }))
        refused("num_classes must be positive", F.one_hot, pg.int64 { 0 }, 0)
    end)
end)
