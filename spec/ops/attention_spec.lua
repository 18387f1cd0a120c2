local pg = require "perigee"
local numbers = require "spec.support.numbers"

local F = pg.nn.functional
local attention = F.scaled_dot_product_attention
local random, close, refuses = numbers.random, numbers.close, numbers.refuses

-- By the definition; mask is added.
local function plain(q, k, v, mask, scale)
    local scores = q:matmul(k:transpose(-2, -1)) * (scale or 1 / math.sqrt(q:size(-1)))
    if mask then scores = scores + mask end
    return scores:softmax(-1):matmul(v)
end

local function causal_mask(rows, cols)
    local list = {}
    for i = 1, rows do
        list[i] = {}
        for j = 1, cols do list[i][j] = j > i and -math.huge or 0 end
    end
    return pg.tensor(list)
end

describe("scaled_dot_product_attention", function()
    -- lengths around the blocks of 64 queries, 128 keys and 512 queries that share one packing
    local cases = { { 1, 1, 1, 1, 4 }, { 2, 3, 5, 7, 8 }, { 1, 2, 64, 64, 32 }, { 1, 1, 65, 129, 16 }, { 1, 1,
        300, 200, 24 },
        { 1, 1, 530, 140, 8 } }

    it("is softmax(scale q k^T + mask) v", function()
        for _, c in ipairs(cases) do
            local B, H, L, S, E = unpack(c)
            local q, k, v = random({ B, H, L, E }), random({ B, H, S, E }), random({ B, H, S, E })
            close(attention(q, k, v), plain(q, k, v), 3e-6)
            close(attention(q, k, v, { scale = 0.3 }), plain(q, k, v, nil, 0.3), 3e-6)
            close(attention(q, k, v, { is_causal = true }), plain(q, k, v, causal_mask(L, S)), 3e-6)
            local mask = random({ H, L, S })
            close(attention(q, k, v, mask), plain(q, k, v, mask), 3e-6)
        end
    end)

    it("takes heads that lie apart, and gives gradients for them", function()
        local qkv = random({ 2, 70, 3 * 4 * 8 }, { requires_grad = true })
        local function heads(x) return x:view(2, 70, 4, 8):transpose(1, 2) end
        local function run(f)
            local q, k, v = unpack(qkv:split(32, -1))
            local y = f(heads(q), heads(k), heads(v))
            return y, pg.autograd.grad(y:mul(y):sum(), qkv)
        end
        local y, grad = run(function(q, k, v) return attention(q, k, v, { is_causal = true }) end)
        local mask = causal_mask(70, 70)
        local expected, expected_grad = run(function(q, k, v) return plain(q, k, v, mask) end)
        close(y, expected, 3e-6)
        close(grad, expected_grad, 2e-5)
    end)

    it("takes bool masks, and gives zeros to a query that sees nothing", function()
        local q, k, v = random({ 2, 2, 4 }), random({ 2, 3, 4 }), random({ 2, 3, 5 })
        local mask = pg.bool { { true, false, true }, { false, false, false } }
        local y = attention(q, k, v, mask)
        local added = pg.tensor { { 0, -math.huge, 0 } }
        close(y:select(1, 0), plain(q, k, v, added):select(1, 0), 3e-6)
        close(y:select(1, 1), pg.tensor { 0 }:expand(2, 5):contiguous(), 0)
        q:requires_grad_()
        attention(q, k, v, mask):sum():backward()
        for _, g in ipairs(numbers.flat(q.grad)) do assert.is_true(g == g) end
    end)

    it("takes any number of dimensions and broadcasts batches", function()
        local q, k, v = random({ 3, 4 }), random({ 5, 4 }), random({ 5, 6 })
        close(attention(q, k, v), plain(q, k, v), 3e-6)
        local q5, k5 = random({ 2, 1, 2, 3, 4 }), random({ 2, 3, 2, 5, 4 })
        local mask = random({ 3, 1, 3, 5 })
        close(attention(q5, k5, k5, mask), plain(q5, k5, k5, mask), 3e-6)
        assert.are.same({ 2, 0, 4 }, { unpack(attention(random({ 2, 1, 4 }):narrow(1, 0, 0), random({ 2, 3, 4 }),
            random({ 2, 3, 4 })).shape) })
    end)

    it("shares the heads of key and value", function()
        local q, k, v = random({ 1, 6, 3, 4 }), random({ 1, 2, 3, 4 }), random({ 1, 2, 3, 4 })
        local wide_k, wide_v = k:repeat_interleave(3, 1), v:repeat_interleave(3, 1)
        close(attention(q, k, v, { enable_gqa = true }), plain(q, wide_k, wide_v), 3e-6)
        refuses("enable_gqa: the heads of key and value must be equal and divide those of query", function()
            attention(q, random({ 1, 4, 3, 4 }), random({ 1, 4, 3, 4 }), { enable_gqa = true })
        end)
    end)

    it("drops weights with the seed", function()
        local q, k = random({ 1, 1, 40, 4 }), random({ 1, 1, 30, 4 })
        local v = pg.tensor(1):expand(1, 1, 30, 1)
        pg.manual_seed(11)
        local a = attention(q, k, v, nil, 0.4)
        pg.manual_seed(11)
        local b = attention(q, k, v, nil, 0.4)
        close(a, b, 0)
        local sum = a:sum():item() / 40
        assert.is_true(sum > 0.85 and sum < 1.15 and sum ~= 1)
        close(attention(q, k, v, nil, 1), a * 0, 0)
    end)

    it("works in halves", function()
        local q = random({ 1, 2, 5, 4 }):to(pg.bfloat16):requires_grad_()
        local y = attention(q, q, q, { is_causal = true })
        assert.are.equal(pg.bfloat16, y.dtype)
        y:sum():backward()
        assert.are.equal(pg.bfloat16, q.grad.dtype)
        local wide = q:detach():to(pg.float32)
        close(y:detach():to(pg.float32), attention(wide, wide, wide, { is_causal = true }), 1e-2)
    end)

    it("gives the same bits at every thread count", function()
        for _, c in ipairs { { 2, 2, 70, 70, 8 }, { 1, 1, 200, 300, 8 } } do
            local B, H, L, S, E = unpack(c)
            local q = random({ B, H, L, E }, { requires_grad = true })
            local k, v = random({ B, H, S, E }, { requires_grad = true }), random({ B, H, S, E },
                { requires_grad = true })
            local g = random({ B, H, L, E })
            numbers.same_at_every_thread_count(function()
                local y = attention(q, k, v, { is_causal = true })
                return { y, pg.autograd.grad(y, { q, k, v }, { grad_outputs = g }) }
            end)
        end
    end)

    it("says what does not fit", function()
        local q = random({ 2, 3, 4 })
        refuses("the last sizes of query and key differ: [2, 3, 4] and [2, 3, 5]", function()
            attention(q, random({ 2, 3, 5 }), q)
        end)
        refuses("key and value differ in length: [2, 3, 4] and [2, 5, 4]", function()
            attention(q, q, random({ 2, 5, 4 }))
        end)
        refuses("expected query, key and value of one dtype, got float32, float32 and float64", function()
            attention(q, q, random({ 2, 3, 4 }, { dtype = pg.float64 }))
        end)
        refuses("attn_mask of shape [2, 5] does not broadcast to [2, 3, 3]", function()
            attention(q, q, q, random({ 2, 5 }))
        end)
        refuses("attn_mask and is_causal cannot be given together", function()
            attention(q, q, q, random({ 3, 3 }), { is_causal = true })
        end)
        refuses("expected attn_mask of dtype bool or floating, got int64", function()
            attention(q, q, q, pg.int64 { { 1 } })
        end)
        refuses("dropout_p must be between 0 and 1, got -1", function() attention(q, q, q, nil, -1) end)
        refuses("query needs at least 2 dimensions, got shape [4]", function() attention(q[0][0], q, q) end)
        refuses("scaled_dot_product_attention", function() attention(q, random({ 3, 3, 4 }), random({ 3, 3, 4 })) end)
    end)
end)
