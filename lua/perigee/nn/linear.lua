--- Layers that look up or multiply by a weight: Linear, Embedding, Identity.

local check = require("perigee.check")
local init = require("perigee.nn.initializers")
local module = require("perigee.nn.module")
local parameter = require("perigee.nn.parameter")
local pg = require("perigee")

local F = require("perigee.nn.functional")

local M = {}

-- ---- Identity ----

local Identity = module.class("Identity")
M.Identity = Identity

function Identity.__init() end

function Identity.forward(_, x)
    return x
end

-- ---- Linear ----

--- y = x W^T + b. weight (out_features, in_features), bias (out_features). Both start uniform in
-- +-1/sqrt(in_features).
---@class Linear: Module
local Linear = module.class("Linear")
M.Linear = Linear

--- in_features: integer, out_features: integer, bias: bool = true, *, device, dtype
function Linear:__init(...)
    local o = check.arguments("Linear", { "in_features", "out_features", "bias" }, {
        in_features = check.none, out_features = check.none, bias = true, device = check.none, dtype = check.none,
    }, ...)
    self.in_features = check.integer("Linear", "in_features", o.in_features, 0)
    self.out_features = check.integer("Linear", "out_features", o.out_features, 0)
    self.weight = parameter.empty({ o.out_features, o.in_features }, o)
    if o.bias then
        self.bias = parameter.empty({ o.out_features }, o)
    end
    self:reset_parameters()
end

function Linear:reset_parameters()
    if self.in_features == 0 or self.out_features == 0 then
        if self.bias then
            init.zeros_(self.bias)
        end
        return
    end
    init.kaiming_uniform_(self.weight, { a = math.sqrt(5) })
    if self.bias then
        local bound = 1 / math.sqrt(self.in_features)
        init.uniform_(self.bias, -bound, bound)
    end
end

---@param x Tensor (*, in_features)
---@return Tensor (*, out_features)
function Linear:forward(x)
    return F.linear(x, self.weight, self.bias)
end

function Linear:extra_repr()
    return ("in_features=%d, out_features=%d, bias=%s"):format(self.in_features, self.out_features,
        self.bias and "True" or "False")
end

-- ---- Embedding ----

--- Rows of a table by id. weight (num_embeddings, embedding_dim) starts normal(0, 1), the padding row zero.
---@class Embedding: Module
local Embedding = module.class("Embedding")
M.Embedding = Embedding

--- num_embeddings: integer, embedding_dim: integer, padding_idx: integer? (a row that starts at zero and gets no
-- gradient), *, device, dtype
function Embedding:__init(...)
    local o = check.arguments("Embedding", { "num_embeddings", "embedding_dim", "padding_idx" }, {
        num_embeddings = check.none, embedding_dim = check.none, padding_idx = check.none, device = check.none,
        dtype = check.none,
    }, ...)
    local n = check.integer("Embedding", "num_embeddings", o.num_embeddings, 0)
    self.num_embeddings = n
    self.embedding_dim = check.integer("Embedding", "embedding_dim", o.embedding_dim, 0)
    if o.padding_idx then
        self.padding_idx = check.integer("Embedding", "padding_idx", o.padding_idx, -n, n - 1) % n
    end
    self.weight = parameter.empty({ n, o.embedding_dim }, o)
    self:reset_parameters()
end

function Embedding:reset_parameters()
    init.normal_(self.weight)
    if self.padding_idx then
        pg.no_grad(function()
            self.weight:select(0, self.padding_idx):zero_()
        end)
    end
end

---@param ids Tensor (*) int64
---@return Tensor (*, embedding_dim)
function Embedding:forward(ids)
    if self.padding_idx then
        return F.embedding(ids, self.weight, self.padding_idx)
    end
    return F.embedding(ids, self.weight)
end

function Embedding:extra_repr()
    local text = ("%d, %d"):format(self.num_embeddings, self.embedding_dim)
    if self.padding_idx then
        text = ("%s, padding_idx=%d"):format(text, self.padding_idx)
    end
    return text
end

return M
