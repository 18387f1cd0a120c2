-- Perigee's side of the benchmark: the rows of scripts/bench_torch.py, name by name, one line of JSON each.
--
-- usage: build/perigee scripts/bench.lua [--device=cuda] [--threads=N] [--smoke] [--list] [ROW...]
--
-- A row's setup builds its data and gives back one step and, where that says more than a time, what a step moves or
-- does: {bytes =, flops =, tokens =}. A step is repeated until a sample lasts long enough to be
-- timed, and the median of several samples is printed as {"arm": "perigee", "row": NAME, "ms": MILLISECONDS A STEP}.
-- --smoke takes one step of each, to see that it runs. scripts/bench --against torch interleaves the two sides.

local pg = require "perigee"

local nn, F = pg.nn, pg.nn.functional
local MILLION = 2 ^ 20

local now = require("perigee.system").monotonic

local rows, order, gpu_only = {}, {}, {}
local function row(name, setup)
    rows[name] = setup
    order[#order + 1] = name
end

--- A row that would take hours on a cpu: run there only by name.
local function gpu_row(name, setup)
    row(name, setup)
    gpu_only[name] = true
end

local device = "cpu"

-- What was launched has run.
local function settle()
    if device ~= "cpu" then
        pg.cuda.synchronize()
    end
end

local function median(samples)
    table.sort(samples)
    return samples[math.ceil(#samples / 2)]
end

--- Median seconds of one step. Warm-up lasts 0.3 s, a sample about 0.15 s; 5 samples, 3 of steps beyond a second.
local function measure(step, smoke)
    settle()
    local start, calls = now(), 0
    if smoke then
        step()
        settle()
        return now() - start
    end
    while calls < 2 or (now() - start < 0.3 and calls < 2000) do
        step()
        calls = calls + 1
    end
    settle()
    local estimate = (now() - start) / calls
    local repeats = math.max(1, math.min(100000, math.floor(0.15 / estimate + 0.5)))
    local samples = {}
    for k = 1, estimate > 1 and 3 or 5 do
        start = now()
        for _ = 1, repeats do
            step()
        end
        settle()
        samples[k] = (now() - start) / repeats
    end
    return median(samples)
end

-- single calls: what a call costs

row("op_add", function()
    local a, b = pg.ones(1), pg.ones(1)
    return function()
        return a + b
    end
end)

row("op_add_grad", function()
    local a, b = pg.ones(1, {requires_grad = true}), pg.ones(1)
    return function()
        return a + b
    end
end)

row("op_view", function()
    local a = pg.ones(4, 8)
    return function()
        return a:transpose(0, 1)
    end
end)

row("op_linear_fwd_bwd", function()
    local layer, x = nn.Linear(64, 64), pg.randn(8, 64)
    return function()
        layer:zero_grad()
        layer(x):sum():backward()
    end
end)

-- kernels: what memory and arithmetic cost

-- What the others that are bound by memory are measured by.
row("copy_64m", function()
    local a = pg.randn(64 * MILLION)
    local out = pg.empty_like(a)
    return function()
        out:copy_(a)
    end, {bytes = 2 * 4 * 64 * MILLION}
end)

row("elementwise_16m", function()
    local a, b = pg.randn(16 * MILLION), pg.randn(16 * MILLION)
    local out = pg.empty_like(a)
    return function()
        pg.add(a, b, {out = out})
    end, {bytes = 3 * 4 * 16 * MILLION}
end)

row("exp_4m", function()
    local a = pg.randn(4 * MILLION)
    return function()
        return pg.exp(a)
    end, {bytes = 2 * 4 * 4 * MILLION}
end)

row("gelu_tanh_4m", function()
    local a = pg.randn(4 * MILLION)
    return function()
        return F.gelu(a, {approximate = "tanh"})
    end, {bytes = 2 * 4 * 4 * MILLION}
end)

-- An activation written by hand: a chain of pointwise ops, forward and backward.
row("mish_by_hand_4m_fwd_bwd", function()
    local a, g = pg.randn(4 * MILLION, {requires_grad = true}), pg.randn(4 * MILLION)
    return function()
        a.grad = nil
        local y = a * a:exp():log1p():tanh()
        y:backward(g)
    end
end)

row("softmax_4096x1000", function()
    local a = pg.randn(4096, 1000)
    return function()
        return F.softmax(a, -1)
    end, {bytes = 2 * 4 * 4096 * 1000}
end)

-- GPT-2's head on 256 positions.
row("cross_entropy_fwd_bwd", function()
    local logits, targets = pg.randn(256, 50257, {requires_grad = true}), pg.randint(0, 50257, {256})
    return function()
        logits.grad = nil
        F.cross_entropy(logits, targets):backward()
    end, {bytes = 3 * 4 * 256 * 50257}
end)

-- The same from what the head sees.
row("linear_cross_entropy_fwd_bwd", function()
    local hidden, weight = pg.randn(256, 768, {requires_grad = true}), pg.randn(50257, 768, {requires_grad = true})
    local targets = pg.randint(0, 50257, {256})
    return function()
        hidden.grad, weight.grad = nil, nil
        F.linear_cross_entropy(hidden, weight, targets):backward()
    end, {flops = 6 * 256 * 768 * 50257}
end)

row("sum_16m", function()
    local a = pg.randn(16 * MILLION)
    return function()
        return a:sum()
    end, {bytes = 4 * 16 * MILLION}
end)

row("sum_dim0_4096", function()
    local a = pg.randn(4096, 4096)
    return function()
        return a:sum(0)
    end, {bytes = 4 * 4096 * 4096}
end)

row("transpose_copy_4096", function()
    local a = pg.randn(4096, 4096)
    return function()
        return a:t():contiguous()
    end, {bytes = 2 * 4 * 4096 * 4096}
end)

row("layernorm_8192x768_fwd_bwd", function()
    local layer = nn.LayerNorm(768)
    local x, start = pg.randn(8192, 768, {requires_grad = true}), pg.randn(8192, 768)
    return function()
        x.grad = nil
        layer:zero_grad()
        layer(x):backward(start)
    end, {bytes = 5 * 4 * 8192 * 768}
end)

row("matmul_2048", function()
    local a, b = pg.randn(2048, 2048), pg.randn(2048, 2048)
    return function()
        return a:matmul(b)
    end, {flops = 2 * 2048 ^ 3}
end)

row("bmm_48x64x64", function()
    local a, b = pg.randn(48, 64, 32), pg.randn(48, 32, 64)
    return function()
        return a:matmul(b)
    end
end)

row("embedding_bwd", function()
    local layer, ids = nn.Embedding(50257, 256), pg.randint(0, 50257, {8, 512})
    return function()
        layer:zero_grad()
        layer(ids):sum():backward()
    end
end)

row("randn_16m", function()
    return function()
        return pg.randn(16 * MILLION)
    end
end)

row("sdpa_causal_fwd_bwd", function()
    local q, k, v = pg.randn(4, 12, 512, 64), pg.randn(4, 12, 512, 64), pg.randn(4, 12, 512, 64)
    q:requires_grad_(true)
    k:requires_grad_(true)
    v:requires_grad_(true)
    local start = pg.randn(4, 12, 512, 64)
    return function()
        q.grad, k.grad, v.grad = nil, nil, nil
        F.scaled_dot_product_attention(q, k, v, {is_causal = true}):backward(start)
    end, {flops = 7 * 4 * 12 * 512 ^ 2 * 64}
end)

-- FlashAttention's own figure: 7 products of T x T x size a head, half of them masked.
gpu_row("sdpa_bf16_causal_fwd_bwd", function()
    local options = {dtype = pg.bfloat16}
    local function heads()
        return pg.randn(16, 12, 1024, 64, options):requires_grad_(true)
    end
    local q, k, v, start = heads(), heads(), heads(), pg.randn(16, 12, 1024, 64, options)
    return function()
        q.grad, k.grad, v.grad = nil, nil, nil
        F.scaled_dot_product_attention(q, k, v, {is_causal = true}):backward(start)
    end, {flops = 7 * 16 * 12 * 1024 ^ 2 * 64}
end)

-- training steps

-- 17 layers of GPT-2's width: 10.05 million parameters in 51 tensors.
local function adamw()
    local params = {}
    for _ = 1, 17 do
        for _, shape in ipairs {{768, 768}, {768}, {768}} do
            local p = pg.randn(shape, {requires_grad = true})
            p.grad = pg.randn(shape)
            params[#params + 1] = p
        end
    end
    local optimizer = pg.optim.AdamW(params, {lr = 1e-3, weight_decay = 0.1})
    return function()
        optimizer:step()
    end
end
row("adamw_10m", adamw)
row("adamw_10m_fused", adamw) -- the other side asks for its fused kernel here; ours is always one pass

row("mnist_mlp", function()
    local model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    local optimizer = pg.optim.Adam(model:parameters(), {lr = 1e-3})
    local images, labels = pg.randn(64, 784), pg.randint(0, 10, {64})
    return function()
        optimizer:zero_grad()
        F.cross_entropy(model(images), labels):backward()
        optimizer:step()
    end
end)

-- Forward, backward, clip, AdamW with decay on matrices alone.
local function gpt(batch_size, config)
    local model = pg.models.gpt.GPT(config)
    local params = model:parameters()
    local optimizer = model:configure_optimizer {lr = 1e-3, betas = {0.9, 0.99}, weight_decay = 0.1}
    local shape = {batch_size, config.block_size}
    local ids, targets = pg.randint(0, config.vocab_size, shape), pg.randint(0, config.vocab_size, shape)
    return function()
        optimizer:zero_grad()
        model:loss(ids, targets):backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer:step()
    end
end

row("nanogpt_char", function()
    return gpt(12, {vocab_size = 65, block_size = 64, n_layer = 4, n_head = 4, n_embd = 128, bias = false})
end)

row("gpt2_124m", function()
    return gpt(4, {vocab_size = 50257, block_size = 64, n_layer = 12, n_head = 12, n_embd = 768, bias = true})
end)

-- A step of 65,536 tokens in four parts, bfloat16 by autocast, vocabulary padded; the other side compiles its model.
gpu_row("gpt2_124m_bf16", function()
    local parts, shape = 4, {16, 1024}
    local model = pg.models.gpt.GPT {
        vocab_size = 50304, block_size = 1024, n_layer = 12, n_head = 12, n_embd = 768, bias = true,
    }
    local params = model:parameters()
    local optimizer = model:configure_optimizer {lr = 6e-4, betas = {0.9, 0.95}, weight_decay = 0.1}
    local ids, targets = pg.randint(0, 50257, shape), pg.randint(0, 50257, shape)
    local options = {dtype = pg.bfloat16}
    local kind = device:match "^%a+"
    local function part()
        local loss = pg.autocast(kind, options, model.loss, model, ids, targets) / parts
        loss:backward()
    end
    local tokens = parts * shape[1] * shape[2]
    return function()
        optimizer:zero_grad()
        for _ = 1, parts do
            pg.scope(part)
        end
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer:step()
    end, {tokens = tokens, flops = tokens * (6 * model:num_parameters() + 12 * 12 * 768 * 1024)}
end)

-- A process that loads the library and ends (and the shell that starts it).
row("start_up", function()
    local lowest = 0
    while arg[lowest - 1] do
        lowest = lowest - 1
    end
    local command = ("'%s' -e 'require \"perigee\"'"):format(arg[lowest])
    return function()
        local status = os.execute(command)
        assert(status == 0 or status == true, "cannot run " .. command)
    end
end)

local smoke, threads, chosen = false, nil, {}
for _, argument in ipairs(arg) do
    local n = argument:match "^%-%-threads=(%d+)$"
    local where = argument:match "^%-%-device=(.+)$"
    if where then
        device = where
    elseif argument == "--smoke" then
        smoke = true
    elseif argument == "--list" then
        print(table.concat(order, "\n"))
        os.exit(0)
    elseif n then
        threads = tonumber(n)
    elseif rows[argument] then
        chosen[#chosen + 1] = argument
    else
        io.stderr:write(("bench: unknown row or option %s; options: --device=D --threads=N --smoke --list; rows: %s\n")
            :format(argument, table.concat(order, " ")))
        os.exit(2)
    end
end
if threads then
    pg.set_num_threads(threads)
end
local ok, why = pcall(pg.set_default_device, device)
if not ok then
    io.stderr:write(("bench: --device=%s: %s\n"):format(device, (tostring(why):gsub("^[^:]*:%d+: ", ""))))
    os.exit(2)
end
if #chosen == 0 then
    for _, name in ipairs(order) do
        if device ~= "cpu" or not gpu_only[name] then
            chosen[#chosen + 1] = name
        end
    end
end
local hardware = device == "cpu" and "" or (', "gpu": "%s"'):format(pg.cuda.get_device_name(device))
for _, name in ipairs(chosen) do
    pg.manual_seed(0)
    local step, figures = rows[name]()
    local seconds = measure(step, smoke)
    local more = hardware
    for key, value in pairs(figures or {}) do
        more = more .. (', "%s": %.0f'):format(key, value)
    end
    print(('{"arm": "perigee", "row": "%s", "ms": %.7f, "version": "%s", "threads": %d%s}')
        :format(name, seconds * 1e3, pg.version, pg.get_num_threads(), more))
    io.stdout:flush()
    collectgarbage()
    collectgarbage()
end
