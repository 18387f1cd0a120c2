--- GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"): pre-norm transformer blocks,
-- learned positions, a head tied to the token embedding.
--
-- The state dict's keys are GPT-2's: wte, wpe, h.N.ln_1, h.N.attn.c_attn, h.N.attn.c_proj, h.N.ln_2, h.N.mlp.c_fc,
-- h.N.mlp.c_proj, ln_f. Weights are nn.Linear's, (out, in); the published checkpoints keep those of c_attn, c_proj
-- and c_fc transposed. The head has no key: it is wte.

local check = require("perigee.check")
local nn = require("perigee.nn")
local pg = require("perigee")

local F = nn.functional

local M = {}

-- ---- attention ----

--- Causal self-attention over n_head heads.
---@class CausalSelfAttention: Module
local Attention = nn.class("CausalSelfAttention")
M.CausalSelfAttention = Attention

---@param n_embd integer
---@param n_head integer divides n_embd
---@param options table? dropout (0), bias (true)
function Attention:__init(n_embd, n_head, options)
    local o = check.options("CausalSelfAttention", options, { dropout = 0, bias = true })
    check.integer("CausalSelfAttention", "n_embd", n_embd, 1)
    check.integer("CausalSelfAttention", "n_head", n_head, 1)
    if n_embd % n_head ~= 0 then
        check.fail("CausalSelfAttention: n_embd %d is not a multiple of n_head %d", n_embd, n_head)
    end
    self.n_embd, self.n_head, self.dropout = n_embd, n_head, o.dropout
    self.c_attn = nn.Linear(n_embd, 3 * n_embd, { bias = o.bias })
    self.c_proj = nn.Linear(n_embd, n_embd, { bias = o.bias })
    self.resid_dropout = nn.Dropout(o.dropout)
end

---@param x Tensor (B, T, C)
---@return Tensor (B, T, C)
function Attention:forward(x)
    local B, T, C = x:size(0), x:size(1), x:size(2)
    local H = self.n_head
    -- (B, T, 3 C) -> three views (B, H, T, C / H)
    local q, k, v = unpack(self.c_attn(x):split(C, -1))
    q = q:view(B, T, H, C / H):transpose(1, 2)
    k = k:view(B, T, H, C / H):transpose(1, 2)
    v = v:view(B, T, H, C / H):transpose(1, 2)
    local y = F.scaled_dot_product_attention(q, k, v, {
        is_causal = true, dropout_p = self.training and self.dropout or 0,
    })
    return self.resid_dropout(self.c_proj(y:transpose(1, 2):reshape(B, T, C)))
end

-- ---- feed forward ----

---@class MLP: Module
local MLP = nn.class("MLP")
M.MLP = MLP

function MLP:__init(n_embd, options)
    local o = check.options("MLP", options, { dropout = 0, bias = true })
    self.c_fc = nn.Linear(n_embd, 4 * n_embd, { bias = o.bias })
    self.gelu = nn.GELU("tanh")
    self.c_proj = nn.Linear(4 * n_embd, n_embd, { bias = o.bias })
    self.dropout = nn.Dropout(o.dropout)
end

---@param x Tensor (..., C)
---@return Tensor (..., C), through 4 C
function MLP:forward(x)
    return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))
end

-- ---- block ----

---@class Block: Module
local Block = nn.class("Block")
M.Block = Block

function Block:__init(n_embd, n_head, options)
    local o = check.options("Block", options, { dropout = 0, bias = true, eps = 1e-5 })
    local inner = { dropout = o.dropout, bias = o.bias }
    self.ln_1 = nn.LayerNorm(n_embd, { eps = o.eps, bias = o.bias })
    self.attn = Attention(n_embd, n_head, inner)
    self.ln_2 = nn.LayerNorm(n_embd, { eps = o.eps, bias = o.bias })
    self.mlp = MLP(n_embd, inner)
end

---@param x Tensor (B, T, C)
---@return Tensor (B, T, C)
function Block:forward(x)
    local y
    y, x = self.ln_2(x, self.attn(self.ln_1(x)))
    return x + self.mlp(y)
end

-- ---- the model ----

---@class GPT: Module
local GPT = nn.class("GPT")
M.GPT = GPT

--- vocab_size, block_size (positions), n_layer, n_head, n_embd; dropout (0), bias (true: in Linear and LayerNorm),
-- eps (1e-5).
---@param config table
function GPT:__init(config)
    local c = check.options("GPT", config, {
        vocab_size = check.none, block_size = check.none, n_layer = check.none, n_head = check.none,
        n_embd = check.none, dropout = 0, bias = true, eps = 1e-5,
    })
    for _, name in ipairs { "vocab_size", "block_size", "n_layer", "n_head", "n_embd" } do
        check.integer("GPT", name, c[name], 1)
    end
    self.config = c
    self.wte = nn.Embedding(c.vocab_size, c.n_embd)
    self.wpe = nn.Embedding(c.block_size, c.n_embd)
    self.drop = nn.Dropout(c.dropout)
    local blocks = {}
    for i = 1, c.n_layer do
        blocks[i] = Block(c.n_embd, c.n_head, { dropout = c.dropout, bias = c.bias, eps = c.eps })
    end
    self.h = nn.ModuleList(blocks)
    self.ln_f = nn.LayerNorm(c.n_embd, { eps = c.eps, bias = c.bias })
    self:reset_parameters()
end

--- GPT-2's initialisation: normal(0, 0.02), biases 0; projections into the residual stream 0.02 / sqrt(2 n_layer),
-- since 2 n_layer of them add up there.
function GPT:reset_parameters()
    local residual = 0.02 / math.sqrt(2 * self.config.n_layer)
    for name, p in self:named_parameters() do
        if name:find("%.bias$") then
            nn.init.zeros_(p)
        elseif name:find("c_proj%.weight$") then
            nn.init.normal_(p, 0, residual)
        elseif p:dim() >= 2 then
            nn.init.normal_(p, 0, 0.02)
        end
    end
end

--- Number of parameters; the position embedding is not counted unless asked for.
---@param with_positions boolean?
---@return integer
function GPT:num_parameters(with_positions)
    local n = 0
    for _, p in ipairs(self:parameters()) do
        n = n + p:numel()
    end
    return with_positions and n or n - self.wpe.weight:numel()
end

--- What the head sees.
---@param idx Tensor (B, T) int64, T at most block_size
---@return Tensor (B, T, n_embd)
function GPT:hidden(idx)
    local T = idx:size(1)
    if T > self.config.block_size then
        check.fail("GPT: %d tokens, but block_size is %d", T, self.config.block_size)
    end
    local positions = pg.arange(T, { dtype = pg.int64, device = idx.device })
    local x = self.drop(self.wte(idx) + self.wpe(positions))
    for _, block in self.h:iter() do
        x = block(x)
    end
    return self.ln_f(x)
end

---@param idx Tensor (B, T) int64, T at most block_size
---@param targets Tensor? (B, T) int64: the next tokens
---@return Tensor logits (B, T, vocab_size)
---@return Tensor? loss the mean cross entropy, with targets
function GPT:forward(idx, targets)
    local logits = F.linear(self:hidden(idx), self.wte.weight)
    if not targets then
        return logits
    end
    return logits, F.cross_entropy(logits:view(-1, self.config.vocab_size), targets:reshape(-1))
end

--- forward's loss without its logits, which take most of a training step's memory: they become their gradient.
---@param idx Tensor (B, T) int64, T at most block_size
---@param targets Tensor (B, T) int64: the next tokens
---@return Tensor loss the mean cross entropy
function GPT:loss(idx, targets)
    local x = self:hidden(idx):reshape(-1, self.config.n_embd)
    return F.linear_cross_entropy(x, self.wte.weight, targets:reshape(-1))
end

--- AdamW with weight decay on matrices only (embeddings included, as in GPT-2; biases and norms without).
---@param options table lr, betas, weight_decay, eps
---@return table optimizer
function GPT:configure_optimizer(options)
    local o = check.options("configure_optimizer", options, {
        lr = 1e-3, betas = { 0.9, 0.95 }, weight_decay = 0.1, eps = 1e-8,
    })
    local decay, rest = {}, {}
    for _, p in ipairs(self:parameters()) do
        table.insert(p:dim() >= 2 and decay or rest, p)
    end
    return pg.optim.AdamW({
        { params = decay, weight_decay = o.weight_decay },
        { params = rest, weight_decay = 0 },
    }, { lr = o.lr, betas = o.betas, eps = o.eps })
end

-- ---- sampling ----

--- Draws one token a row.
---@param logits Tensor (B, V)
---@param options table? temperature (1; 0 takes the likeliest), top_k (0: all), top_p (1: all; Holtzman et al. 2020)
---@return Tensor (B, 1) int64
function M.sample_token(logits, options)
    local o = check.options("sample_token", options, { temperature = 1, top_k = 0, top_p = 1 })
    check.number("sample_token", "temperature", o.temperature, 0)
    check.integer("sample_token", "top_k", o.top_k, 0)
    check.number("sample_token", "top_p", o.top_p, 0, 1)
    if o.temperature == 0 then
        return logits:argmax(-1, { keepdim = true })
    end
    logits = logits / o.temperature
    local V = logits:size(-1)
    if o.top_k > 0 and o.top_k < V then
        local values = logits:topk(o.top_k, -1)
        logits = logits:masked_fill(logits:lt(values:narrow(-1, o.top_k - 1, 1)), -math.huge)
    end
    if o.top_p < 1 then
        local sorted = logits:sort(-1, { descending = true })
        local probabilities = sorted:softmax(-1)
        -- A token stays while those before it do not reach top_p: the likeliest always does.
        local beyond = (probabilities:cumsum(-1) - probabilities):ge(o.top_p)
        beyond = beyond:logical_and(pg.arange(V, { dtype = pg.int64, device = logits.device }):gt(0))
        local least = sorted:masked_fill(beyond, math.huge):amin(-1, { keepdim = true })
        logits = logits:masked_fill(logits:lt(least), -math.huge)
    end
    return logits:softmax(-1):multinomial(1)
end

--- Goes on from idx, one token at a time.
---@param idx Tensor (B, T) int64, T at least 1
---@param max_new_tokens integer
---@param options table? temperature, top_k, top_p as sample_token's; on_token: function(ids (B, 1)) called with
---  each; false from it stops
---@return Tensor (B, T + the new ones)
function GPT:generate(idx, max_new_tokens, options)
    local o = check.options("generate", options, { temperature = 1, top_k = 0, top_p = 1, on_token = check.none })
    local sampling = { temperature = o.temperature, top_k = o.top_k, top_p = o.top_p }
    local was_training = self.training
    self:eval()
    local function next_token()
        local T, block = idx:size(1), self.config.block_size
        local context = T > block and idx:narrow(1, T - block, block) or idx
        local logits = self(context)
        return M.sample_token(logits:select(1, logits:size(1) - 1), sampling)
    end
    local function run()
        for _ = 1, max_new_tokens do
            local token
            idx, token = pg.scope(function()
                local t = next_token()
                return pg.cat({ idx, t }, 1), t
            end)
            if o.on_token and o.on_token(token) == false then
                break
            end
        end
        return idx
    end
    local ok, result = pcall(pg.no_grad, run)
    self:train(was_training)
    if not ok then
        error(result, 0)
    end
    return result
end

return M
