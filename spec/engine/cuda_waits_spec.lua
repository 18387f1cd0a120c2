-- The host does not wait for a CUDA device but where it reads: seen where streams run late. An event behind a first
-- piece of work is not reached while an op, its gradients or an optimizer's step is launched; a read reaches it.
local pg = require "perigee"
local core = require "perigee.ffi"
local on_cuda = require "spec.support.on_cuda"
local samples = require "spec.support.samples"
local wrapper = require "perigee.wrapper"

-- Ops whose samples have masks among their indices: how many elements a mask selects is read.
local masks = { pg_index = true, pg_index_put = true, pg_index_put_ = true }

-- Has the host waited for the device while f ran?
local function waits(f)
    pg.cuda.synchronize()
    local event = pg.cuda.Event()
    local work = pg.zeros(8, { device = "cuda" })
    event:record()
    f()
    local reached = event:query()
    work:free()
    return reached
end

local function tensors_of(...)
    local list = {}
    for k = 1, select("#", ...) do
        local v = (select(k, ...))
        if pg.is_tensor(v) then
            if v.requires_grad then list[#list + 1] = v end
        elseif type(v) == "table" then
            for _, t in ipairs(v) do
                if t.requires_grad then list[#list + 1] = t end
            end
        end
    end
    return list
end

on_cuda("spec/engine/cuda_waits_spec.lua", function()
    if not os.getenv("PERIGEE_CUDA_LATE") then
        it("is seen where streams run late", function()
            pending("a GPU may have run anything by the time it is asked: emulated CUDA shows this")
        end)
        return
    end

    describe("the host", function()
        it("is seen to wait where it reads", function()
            local x = pg.ones(3, { device = "cuda" })
            assert.is_true(waits(function() return x:sum():item() end))
            assert.is_true(waits(function() return x:cpu() end))
            assert.is_true(waits(function() return tostring(x) end))
            assert.is_true(waits(function() return x:nonzero() end))
            assert.is_true(waits(function() return x[x:gt(0)] end))
            assert.is_false(waits(function() return pg.tensor({ 1, 2 }, { device = "cuda" }) end))
            local places = pg.int64({ 2, 0 }, { device = "cuda" })
            assert.is_false(waits(function() return x[{ places }] end))
            assert.is_false(waits(function() x[{ places }] = 1 end))
        end)

        for _, row in ipairs(core.rows) do
            local list = samples[row.symbol]
            if list and not row.attrs.sync and not row.alias and not masks[row.symbol] then
                it("does not wait for " .. row.signature, function()
                    local op = wrapper.of_rows({ row })
                    for _, sample in ipairs(list) do
                        -- once before: what is made only the first time may be waited for
                        for round = 1, 2 do
                            local waited = waits(function()
                                local outputs
                                if sample.call then
                                    outputs = tensors_of(sample.call(op, unpack(sample)))
                                else
                                    outputs = tensors_of(op(unpack(sample)))
                                end
                                local inputs = tensors_of(unpack(sample))
                                if #outputs == 0 or #inputs == 0 then return end
                                local seeds = {}
                                for k, output in ipairs(outputs) do seeds[k] = pg.ones_like(output:detach()) end
                                pg.autograd.grad(outputs, inputs, { grad_outputs = seeds, allow_unused = true })
                            end)
                            if round == 2 then assert.is_false(waited) end
                        end
                    end
                end)
            end
        end

        it("does not wait for a step of training", function()
            local nn = pg.nn
            local model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 3)):cuda()
            local opt = pg.optim.AdamW(model:parameters())
            local x, y = pg.randn(4, 8, { device = "cuda" }), pg.randint(0, 3, { 4 }, { device = "cuda" })
            local function step()
                opt:zero_grad()
                local loss = nn.functional.cross_entropy(model(x), y)
                loss:backward()
                nn.utils.clip_grad_norm_(model:parameters(), 1)
                opt:step()
                return loss
            end
            step()
            local loss
            assert.is_false(waits(function() loss = step() end))
            assert.is_true(waits(function() return loss:item() end))
        end)
    end)
end, { "PERIGEE_CUDA_LATE=3 PERIGEE_SPEC_DEVICE=cuda" })
