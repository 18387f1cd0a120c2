local pg = require("perigee")
local numbers = require("spec.support.numbers")
local gpt = require("perigee.models.gpt")

local function model_of(options)
    local config = { vocab_size = 11, block_size = 8, n_layer = 2, n_head = 2, n_embd = 16 }
    for key, value in pairs(options or {}) do
        config[key] = value
    end
    return gpt.GPT(config)
end

describe("GPT", function()
    it("has GPT-2's names", function()
        local keys = model_of({ n_layer = 1 }):state_dict():keys()
        assert.same({
            "wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.0.ln_1.bias", "h.0.attn.c_attn.weight",
            "h.0.attn.c_attn.bias", "h.0.attn.c_proj.weight", "h.0.attn.c_proj.bias", "h.0.ln_2.weight",
            "h.0.ln_2.bias", "h.0.mlp.c_fc.weight", "h.0.mlp.c_fc.bias", "h.0.mlp.c_proj.weight",
            "h.0.mlp.c_proj.bias", "ln_f.weight", "ln_f.bias",
        }, keys)
        local model = model_of { n_layer = 1, bias = false }
        assert.equal(1 * (4 * 16 * 16 + 8 * 16 * 16 + 2 * 16) + 11 * 16 + 16, model:num_parameters())
        assert.equal(model:num_parameters() + 8 * 16, model:num_parameters(true))
    end)

    it("starts as GPT-2 does", function()
        pg.manual_seed(1)
        local model = gpt.GPT { vocab_size = 50, block_size = 64, n_layer = 8, n_head = 4, n_embd = 64 }
        local function std(name)
            return model:get_parameter(name):std():item()
        end
        assert.is_true(math.abs(std("wte.weight") - 0.02) < 0.001)
        assert.is_true(math.abs(std("h.3.mlp.c_fc.weight") - 0.02) < 0.001)
        assert.is_true(math.abs(std("h.3.mlp.c_proj.weight") - 0.02 / 4) < 0.0005)
        assert.equal(0, model:get_parameter("h.3.attn.c_attn.bias"):abs():sum():item())
        assert.equal(1, model:get_parameter("ln_f.weight"):min():item())
        local ids = pg.randint(0, 50, { 4, 64 })
        local _, loss = model(ids, ids:roll(-1, 1))
        assert.is_true(math.abs(loss:item() - math.log(50)) < 0.1)
    end)

    it("looks at the past only", function()
        pg.manual_seed(2)
        local model = model_of()
        model:eval()
        local a = pg.int64 { { 1, 2, 3, 4, 5, 6 } }
        local b = pg.int64 { { 1, 2, 3, 9, 0, 1 } }
        local x, y = model(a), model(b)
        assert.is_true((x - y):narrow(1, 0, 3):abs():max():item() < 1e-6)
        assert.is_true((x - y):narrow(1, 3, 3):abs():max():item() > 1e-4)
    end)

    it("gives forward's loss, with its gradients, without its logits", function()
        pg.manual_seed(6)
        for _, bias in ipairs { true, false } do
            local model = model_of { bias = bias }:to(pg.float64)
            local ids = pg.randint(0, 11, { 3, 9 })
            local x, y = ids:narrow(1, 0, 8), ids:narrow(1, 1, 8):clone()
            y[1] = -100
            local wanted = {}
            local _, loss = model(x, y)
            loss:backward()
            for name, p in model:named_parameters() do
                wanted[name] = p.grad
            end
            model:zero_grad()
            local mine = model:loss(x, y)
            numbers.close(mine, loss, 1e-13)
            mine:backward()
            for name, p in model:named_parameters() do
                numbers.close(p.grad, wanted[name], 1e-12)
            end
        end
    end)

    it("learns a sequence by heart and says it", function()
        pg.manual_seed(3)
        local model = model_of { dropout = 0.05 }
        local ids = pg.int64 { { 1, 2, 3, 4, 5, 6, 7, 8, 9 } }
        local x, y = ids:narrow(1, 0, 8), ids:narrow(1, 1, 8)
        local optimizer = model:configure_optimizer { lr = 1e-2 }
        assert.equal(0.1, optimizer.param_groups[1].weight_decay)
        assert.equal(0, optimizer.param_groups[2].weight_decay)
        for _, p in ipairs(optimizer.param_groups[2].params) do
            assert.equal(1, p:dim())
        end
        for _ = 1, 100 do
            pg.scope(function()
                local loss = model:loss(x, y)
                optimizer:zero_grad()
                loss:backward()
                optimizer:step()
            end)
        end
        local heard = {}
        local text = model:generate(pg.int64 { { 1 } }, 8, {
            temperature = 0, on_token = function(token) heard[#heard + 1] = token:item() end,
        })
        assert.same({ { 1, 2, 3, 4, 5, 6, 7, 8, 9 } }, text:totable())
        assert.same({ 2, 3, 4, 5, 6, 7, 8, 9 }, heard)
        assert.is_true(model.training)
        -- Beyond block_size the context slides; a false stops.
        assert.equal(20, model:generate(pg.int64 { { 1 } }, 19):size(1))
        assert.equal(2, model:generate(pg.int64 { { 1 } }, 19, { on_token = function() return false end }):size(1))
    end)

    it("samples by temperature, top_k and top_p", function()
        pg.manual_seed(4)
        local logits = pg.tensor { { 0, 3, 1, 2 } }
        local function counts(options)
            local seen = {}
            for _ = 1, 300 do
                local id = gpt.sample_token(logits, options):item()
                seen[id] = (seen[id] or 0) + 1
            end
            return seen
        end
        local all = counts()
        assert.is_true(all[1] > all[3] and all[3] > all[2])
        assert.same({ [1] = 300 }, counts { temperature = 0 })
        assert.same({ [1] = 300 }, counts { top_k = 1 })
        assert.same({ [1] = 300 }, counts { top_p = 0 })
        assert.same({ [1] = 300 }, counts { top_p = 0.6 })
        local two = counts { top_k = 2 }
        assert.is_true(two[1] > 0 and two[3] > 0 and two[2] == nil and two[0] == nil)
        two = counts { top_p = 0.8 }      -- 0.64 alone is not enough, 0.64 + 0.24 is
        assert.is_true(two[1] > 0 and two[3] > 0 and two[2] == nil and two[0] == nil)
        assert.is_true(counts({ temperature = 0.2 })[1] > 280)
        assert.has_error(function() gpt.sample_token(logits, { top_p = 2 }) end)
        assert.has_error(function() gpt.sample_token(logits, { temperature = -1 }) end)
    end)

    it("says what does not fit", function()
        assert.has_error(function() model_of { n_head = 3 } end)
        assert.has_error(function() model_of { n_layers = 3 } end)
        assert.has_error(function() model_of { n_embd = 2.5 } end)
        local ok, why = pcall(model_of(), pg.zeros(1, 9, { dtype = pg.int64 }))
        assert.is_false(ok)
        assert.matches("9 tokens, but block_size is 8", why)
        ok, why = pcall(model_of().loss, model_of(), pg.zeros(1, 9, { dtype = pg.int64 }))
        assert.is_false(ok)
        assert.matches("9 tokens, but block_size is 8", why)
        assert.is_false((numbers.settled(function() model_of()(pg.int64 { { 11 } }) end)))
    end)
end)
