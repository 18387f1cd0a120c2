-- Elements chosen by tensors. Values and gradients against PyTorch are in spec/fixtures; x[...]'s syntax is in
-- spec/indexing_spec.

local pg = require "perigee"
local numbers = require "spec.support.numbers"

local function refused(pattern, f, ...)
    local ok, message = numbers.settled(f, ...)
    assert.is_false(ok, "was not refused: " .. pattern)
    assert.is_truthy(message:find(pattern, 1, true), message)
end

-- A plain calculation to compare with: element (i, j, ...) of t by its indices.
local function at(t, ...)
    local view = t
    for k = 1, select("#", ...) do view = view[(select(k, ...))] end
    return view:item()
end

describe("indices", function()
    it("of any strides pick what plain reading picks", function()
        local x = pg.randn(4, 5, 6):permute(2, 0, 1)             -- 6, 4, 5
        local rows = pg.int64 { { 3, 5 }, { -1, 0 } }:t()
        local columns = pg.int64 { 4, 2 }
        local y = x[{ rows, {}, columns }]                       -- 2, 2, 4: not neighbours
        assert.same({ 2, 2, 4 }, { unpack(y.shape) })
        for i = 0, 1 do
            for j = 0, 1 do
                for k = 0, 3 do
                    assert.equal(at(x, rows[i][j]:item(), k, columns[j]:item()), at(y, i, j, k))
                end
            end
        end
        local z = x[{ {}, pg.int64 { 3, 0, -2 }, columns[0]:expand(3) }]   -- neighbours: 6, 3
        assert.same({ 6, 3 }, { unpack(z.shape) })
        for i = 0, 5 do
            for j, r in ipairs { 3, 0, 2 } do assert.equal(at(x, i, r, 4), at(z, i, j - 1)) end
        end
    end)

    it("may be of any integer dtype, not of float", function()
        local x = pg.arange(5)
        for _, name in ipairs { "int64", "int32", "int16", "int8" } do
            assert.same({ 4, 0 }, x[pg[name] { -1, 0 }]:totable())
        end
        refused("float32", function() return x[pg.tensor { 1 }] end)
    end)

    it("out of range name the index and the size; nothing is written", function()
        local x = pg.zeros(3, 4)
        refused("index 3 is out of range for a dimension of size 3", function() return x[pg.int64 { 0, 3 }] end)
        refused("index -5 is out of range for a dimension of size 4", function() return x[{ {}, pg.int64 { -5 } }] end)
        refused("index 7 is out of range for a dimension of size 3", function() x[pg.int64 { 0, 7 }] = 1 end)
        refused("index 9 is out of range", function() x:index_add_(0, pg.int64 { 0, 9 }, pg.ones(2, 4)) end)
        refused("index -1 is out of range", function() return x:gather(1, pg.int64 { { -1 } }) end)
        refused("index 4 is out of range for a dimension of size 4", function() return x:scatter(1,
            pg.int64 { { 4 } }, 1) end)
        refused("index -1 is out of range", function() return x:index_select(0, pg.int64 { -1 }) end)
        refused("size 0", function() return pg.zeros(0, 2)[pg.int64 { 0 }] end)
        assert.equal(0, x:abs():sum():item())
        assert.equal(0, pg.zeros(0, 2)[pg.int64 {}]:numel())
    end)

    it("that stand several times: the last wins, sums sum", function()
        local x = pg.zeros(3)
        x[pg.int64 { 1, 1, 1 }] = pg.tensor { 5, 6, 7 }
        assert.same({ 0, 7, 0 }, x:totable())
        assert.same({ 0, 18, 0 }, pg.zeros(3):index_add(0, pg.int64 { 1, 1, 1 }, pg.tensor { 5, 6, 7 }):totable())
        for _, name in ipairs { "int64", "int32", "int16", "int8", "float32", "float16" } do
            local taken = pg[name] { 10, 10, 10 }:index_add(0, pg.int64 { 1, 1 }, pg[name] { 3, 4 }, { alpha = -2 })
            assert.same({ 10, -4, 10 }, taken:totable())
        end
        assert.same({ 0, 18, 0 }, pg.zeros(3):scatter_add(0, pg.int64 { 1, 1, 1 }, pg.tensor { 5, 6, 7 }):totable())
        local w = pg.ones(3, { requires_grad = true })
        w[pg.int64 { 2, 0, 2, 2 }]:sum():backward()
        assert.same({ 1, 0, 3 }, w.grad:totable())
    end)

    it("by mask need its shape, and take its order", function()
        local x = pg.arange(6):view(2, 3)
        local mask = pg.bool { { false, true, true }, { true, false, false } }
        assert.same({ 1, 2, 3 }, x[mask]:totable())
        assert.same({ 1, 2, 3 }, x:t()[mask:t()]:sort():totable())
        assert.same({ { 0, 1, 2 } }, x[pg.bool { true, false }]:totable())
        assert.same({ { 1 }, { 4 } }, x[{ {}, pg.bool { false, true, false } }]:totable())
        refused("the shape of the mask [3] at dimension 0 does not match", function() return x[pg.bool { true, true,
            true }] end)
        x[mask] = -1
        assert.same({ { 0, -1, -1 }, { -1, 4, 5 } }, x:totable())
    end)

    it("of the tensor itself, written to itself", function()
        local x = pg.arange(4)
        x[pg.int64 { 0, 1, 2, 3 }] = x:flip(0)
        assert.same({ 3, 2, 1, 0 }, x:totable())
        x[pg.int64 { 3, 2, 1, 0 }] = x
        assert.same({ 0, 1, 2, 3 }, x:totable())
    end)

    it("saved for a gradient may not change before it", function()
        local w, i = pg.ones(3, { requires_grad = true }), pg.int64 { 0, 1 }
        local y = w[i] * 2
        i:fill_(2)
        refused("modified by an in-place operation", function() y:sum():backward() end)
    end)
end)

describe("gather and scatter", function()
    it("refuse shapes and dtypes that do not go together", function()
        local x = pg.zeros(2, 3)
        refused("expected int64, got float32", x.gather, x, 1, pg.zeros(2, 3))
        refused("as many dimensions as input", x.gather, x, 1, pg.int64 { 0 })
        refused("no larger than input", x.gather, x, 1, pg.zeros(3, 1, { dtype = pg.int64 }))
        refused("no larger than src", x.scatter, x, 1, pg.int64 { { 0, 1 } }, pg.zeros(1, 1))
        refused("expected one dtype", x.scatter, x, 1, pg.int64 { { 0 } }, pg.zeros(1, 1, { dtype = pg.float64 }))
        refused("expected a vector", x.index_select, x, 0, pg.int64 { { 0 } })
        refused("does not fit", x.index_add, x, 0, pg.int64 { 0 }, pg.zeros(2, 3))
        refused("alpha must be an integer", function()
            return pg.int64 { 1 }:index_add(0, pg.int64 { 0 }, pg.int64 { 1 }, { alpha = 0.5 })
        end)
    end)

    it("take no dimensions for one element", function()
        local x = pg.tensor(5)
        assert.equal(5, x:gather(0, pg.zeros({}, { dtype = pg.int64 })):item())
        assert.equal(5, x:index_select(0, pg.int64 { 0 }):item())
        assert.equal(7, x:scatter(0, pg.zeros({}, { dtype = pg.int64 }), 7):item())
    end)

    it("reach through any strides", function()
        local x = pg.randn(5, 4, 3):permute(2, 1, 0)             -- 3, 4, 5
        local index = pg.randint(0, 4, { 3, 2, 5 })
        local y = x:gather(1, index)
        for i = 0, 2 do
            for j = 0, 1 do
                for k = 0, 4 do assert.equal(at(x, i, index[{ i, j, k }]:item(), k), at(y, i, j, k)) end
            end
        end
    end)
end)

describe("masks", function()
    it("fill and select, broadcast both ways", function()
        local x = pg.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
        assert.same({ { 0, 2, 0 }, { 0, 5, 0 } }, x:masked_fill(pg.bool { true, false, true }, 0):totable())
        assert.same({ 2, 5 }, x:masked_select(pg.bool { false, true, false }):totable())
        assert.same({ 2, 4 }, { unpack(pg.tensor { 1 }:masked_fill(pg.zeros(2, 4, { dtype = pg.bool }), 9).shape) })
        refused("expected bool, got float32", x.masked_fill, x, x, 0)
        refused("do not broadcast", x.masked_fill, x, pg.bool { true, false }, 0)
        refused("int64 cannot hold a float", function() return pg.int64 { 1 }:masked_fill(pg.bool { true }, 0.5) end)
        assert.same({ -math.huge }, pg.tensor { 1 }:masked_fill(pg.bool { true }, -math.huge):totable())
    end)

    it("tell where they are true", function()
        assert.same({ { 0, 1 }, { 2, 0 } }, pg.tensor { { 0, 1 }, { 0, 0 }, { 0 / 0, 0 } }:nonzero():totable())
        assert.same({ 2, 1 }, { unpack(pg.tensor { 0, 3, 0, 4 }:nonzero().shape) })
        assert.same({ 1, 0 }, { unpack(pg.tensor(3):nonzero().shape) })
        assert.same({ 0, 2 }, { unpack(pg.zeros(3, 2):nonzero().shape) })
    end)
end)
