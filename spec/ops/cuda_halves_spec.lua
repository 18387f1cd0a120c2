-- Products and attention of half types on CUDA, which have kernels of their own there (tensor cores), against float64
-- on the CPU.
local on_cuda = require "spec.support.on_cuda"
local pg = require "perigee"

local F = pg.nn.functional
local TOLERANCE = { float16 = 6e-3, bfloat16 = 5e-2 }

-- The largest difference as a part of the largest number.
local function distance(got, expected)
    local g, e = got:detach():cpu():to(pg.float64), expected:detach()
    assert(g:isfinite():all():item(), "not finite")
    return ((g - e):abs():max() / e:abs():max()):item()
end

-- f(list of tensors) with its gradients: on CUDA in dtype, on the CPU in float64, from the same numbers.
local function both(dtype, shapes, f)
    pg.manual_seed(3)
    local there, here = {}, {}
    for i, shape in ipairs(shapes) do
        local x = pg.randn(shape, { device = "cpu" }):to(dtype)
        here[i] = x:to(pg.float64):requires_grad_()
        there[i] = x:cuda():requires_grad_()
    end
    local function run(list)
        pg.manual_seed(5)
        local y = f(list)
        y:backward(pg.cos(pg.arange(y:numel(), { dtype = pg.float64 })):reshape(y.shape):to(y.device, y.dtype))
        local all = { y }
        for i, x in ipairs(list) do all[i + 1] = x.grad end
        return all
    end
    local got, expected = run(there), run(here)
    for i, y in ipairs(expected) do
        assert(got[i].dtype == dtype, "dtype")
        local d = distance(got[i], y)
        assert(d <= TOLERANCE[tostring(dtype):match("%w+$")],
            ("%s, result %d: %g apart"):format(tostring(dtype), i, d))
    end
end

on_cuda("spec/ops/cuda_halves_spec.lua", function()
    describe("half types on CUDA:", function()
        local function each(f)
            for _, dtype in ipairs { pg.float16, pg.bfloat16 } do f(dtype) end
        end

        it("matmul, with vectors, batches and odd sizes", function()
            each(function(dtype)
                for _, shapes in ipairs {
                    { { 7, 13 }, { 13, 5 } }, { { 64, 96 }, { 96, 40 } }, { { 2, 3, 9, 8 }, { 3, 8, 17 } },
                    { { 33 }, { 33, 4 } }, { { 4, 33 }, { 33 } }, { { 1, 600 }, { 600, 1 } },
                } do
                    both(dtype, shapes, function(t) return pg.matmul(t[1], t[2]) end)
                end
            end)
        end)

        it("linear with bias and each activation", function()
            each(function(dtype)
                for _, activation in ipairs { false, "relu", "gelu", "gelu_tanh" } do
                    for _, n in ipairs { 24, 13 } do
                        both(dtype, { { 5, 6, 16 }, { n, 16 }, { n } }, function(t)
                            if not activation then return F.linear(t[1], t[2], t[3]) end
                            local bias = n == 24 and t[3] or nil
                            return F.linear(t[1], t[2], bias, { activation = activation }) + t[3]
                        end)
                    end
                end
            end)
        end)

        -- { batch, heads, kv heads, queries, keys, size, size of values }: around the tiles of 128 queries or keys
        -- against 32, 48 and 64; sizes padded to 32, 64, 96 and 128, and those that go without tensor cores; keys
        -- that no query sees under the causal rule
        local SHAPES = {
            { 1, 2, 2, 5, 7, 64, 64 }, { 1, 4, 2, 130, 70, 64, 64 }, { 1, 2, 2, 64, 129, 32, 40 },
            { 1, 1, 1, 150, 150, 128, 128 }, { 1, 2, 1, 33, 70, 80, 96 }, { 2, 4, 2, 20, 30, 12, 5 },
            { 1, 1, 1, 40, 40, 136, 136 }, { 1, 1, 1, 3, 300, 32, 32 },
            { 1, 4, 2, 20, 300, 64, 64 }, { 2, 2, 1, 140, 200, 96, 72 }, { 1, 2, 1, 50, 190, 104, 128 },
        }
        local function shapes_of(s)
            return { { s[1], s[2], s[4], s[6] }, { s[1], s[3], s[5], s[6] }, { s[1], s[3], s[5], s[7] } }
        end
        local function attention(s, options, p)
            return function(t)
                options.enable_gqa = s[2] ~= s[3] or nil
                return F.scaled_dot_product_attention(t[1], t[2], t[3], nil, p or 0, options)
            end
        end

        it("attention, causal and not", function()
            each(function(dtype)
                for _, s in ipairs(SHAPES) do
                    both(dtype, shapes_of(s), attention(s, { is_causal = false }))
                    both(dtype, shapes_of(s), attention(s, { is_causal = true }))
                end
            end)
        end)

        it("attention with dropout: the weights that the CPU drops", function()
            each(function(dtype)
                local even = { { 1, 2, 1, 70, 132, 64, 64 }, { 1, 1, 1, 40, 72, 72, 128 } }   -- weights by fours
                for _, s in ipairs { SHAPES[2], SHAPES[5], SHAPES[6], even[1], even[2] } do
                    both(dtype, shapes_of(s), attention(s, { is_causal = true }, 0.3))
                end
            end)
        end)

        it("attention with masks, and queries that see nothing", function()
            each(function(dtype)
                for _, s in ipairs { SHAPES[1], SHAPES[3], SHAPES[4], SHAPES[6] } do
                    local added = pg.sin(pg.arange(s[4] * s[5]):to(pg.float64)):reshape(s[4], s[5]):to(dtype)
                    local seen = added:gt(0)
                    seen[0] = false
                    both(dtype, shapes_of(s), function(t)
                        local mask = added:to(t[1].device, t[1].dtype)
                        local options = { enable_gqa = s[2] ~= s[3] }
                        return F.scaled_dot_product_attention(t[1], t[2], t[3], mask, 0, options)
                            + F.scaled_dot_product_attention(t[1], t[2], t[3], seen:to(t[1].device), 0, options)
                    end)
                end
            end)
        end)

        it("attention gives the same bits again", function()
            local q = pg.randn(1, 2, 200, 64, { device = "cuda", dtype = pg.bfloat16 }):requires_grad_()
            local function run()
                q.grad = nil
                local y = F.scaled_dot_product_attention(q, q, q, nil, 0, { is_causal = true })
                y:backward(y:detach())
                return y:detach(), q.grad
            end
            local y, g = run()
            for _ = 1, 3 do
                local y2, g2 = run()
                assert.is_true(y:equal(y2) and g:equal(g2))
            end
        end)
    end)
end)
