local pg = require "perigee"
local numbers = require "spec.support.numbers"

local F = pg.nn.functional
local random, close, refuses = numbers.random, numbers.close, numbers.refuses

describe("embedding", function()
    local w = random({ 5, 3 })

    it("fetches rows", function()
        local y = F.embedding(pg.int64 { { 4, 0 }, { 4, 2 } }, w)
        assert.are.same({ 2, 2, 3 }, { unpack(y.shape) })
        close(y[0][0], w[4], 0)
        close(y[1][1], w[2], 0)
        close(F.embedding(pg.tensor({ 1 }, { dtype = pg.int32 }), w:t():contiguous():t())[0], w[1], 0)
        assert.are.same({ 0, 3 }, { unpack(F.embedding(pg.int64 {}, w).shape) })
    end)

    it("adds gradients of rows that were fetched twice, none to the padding row", function()
        local v = random({ 4, 2 }, { requires_grad = true })
        F.embedding(pg.int64 { 1, 3, 1, 0 }, v, 3):backward(pg.tensor { { 1, 2 }, { 3, 4 }, { 5, 6 }, { 7, 8 } })
        assert.are.same({ { 7, 8 }, { 6, 8 }, { 0, 0 }, { 0, 0 } }, v.grad:totable())
        v.grad = nil
        F.embedding(pg.int64 { 1, 3 }, v, -1):sum():backward()
        assert.are.same({ { 0, 0 }, { 1, 1 }, { 0, 0 }, { 0, 0 } }, v.grad:totable())
    end)

    it("gives the same bits at every thread count, repeated rows and all", function()
        local list = {}
        for k = 1, 900 do list[k] = (k * k) % 11 end
        local ids = pg.int64(list)
        for _, size in ipairs { 3, 130 } do
            local v = random({ 11, size }, { requires_grad = true })
            local g = random({ 900, size })
            numbers.same_at_every_thread_count(function()
                local y = F.embedding(ids, v)
                return { y, pg.autograd.grad(y, v, { grad_outputs = g }) }
            end)
        end
    end)

    it("says what is wrong, and goes on", function()
        refuses("embedding: index 5 is out of range", function() F.embedding(pg.int64 { 0, 5 }, w) end)
        refuses("embedding: index -1 is out of range", function() F.embedding(pg.int64 { -1 }, w) end)
        refuses("embedding: expected ids of dtype int64 or int32, got float32", function()
            F.embedding(pg.tensor { 1 }, w)
        end)
        refuses("embedding: weight must be 2-dimensional, got shape [3]", function()
            F.embedding(pg.int64 { 1 }, w[0])
        end)
        refuses("embedding: padding_idx must be within [-5, 4], got 5", function()
            F.embedding(pg.int64 { 1 }, w, 5)
        end)
        close(F.embedding(pg.int64 { 1 }, w)[0], w[1], 0)
    end)
end)

describe("dropout", function()
    it("zeroes a share and scales the rest", function()
        pg.manual_seed(5)
        local y = F.dropout(pg.tensor { 1 }:expand(20000), 0.25)
        local kept = 0
        for _, v in ipairs(y:totable()) do
            if v ~= 0 then
                kept = kept + 1
                assert.is_true(math.abs(v - 4 / 3) < 1e-6)
            end
        end
        assert.is_true(math.abs(kept / 20000 - 0.75) < 0.02)
    end)

    it("gives the gradient the same mask", function()
        local x = random({ 50 }, { requires_grad = true })
        local y = F.dropout(x, 0.5)
        y:sum():backward()
        local values, grads = y:totable(), x.grad:totable()
        for k = 1, 50 do assert.are.equal(values[k] == 0 and 0 or 2, grads[k]) end
    end)

    it("is the input itself outside training, and zero at p = 1", function()
        local x = random({ 4 })
        close(F.dropout(x, 0.5, false), x, 0)
        close(F.dropout(x, 0), x, 0)
        close(F.dropout(x, 1), x * 0, 0)
    end)

    it("repeats with the seed, whatever the threads", function()
        local x = random({ 5000 })
        numbers.same_at_every_thread_count(function()
            pg.manual_seed(9)
            return { F.dropout(x, 0.3) }
        end)
    end)

    it("says what it needs", function()
        refuses("dropout: probability must be between 0 and 1, got 1.5", function() F.dropout(random({ 2 }), 1.5) end)
        refuses("dropout: expected a floating input, got int64", function() F.dropout(pg.int64 { 1 }) end)
    end)
end)
