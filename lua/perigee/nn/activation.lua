--- Layers without parameters: activations, Dropout, Softmax, Flatten.

local check = require("perigee.check")
local F = require("perigee.nn.functional")
local module = require("perigee.nn.module")
local pg = require("perigee")

local M = {}

local function bool_repr(value)
    return value and "True" or "False"
end

-- A layer that applies one function of the input.
local function plain(name, fn)
    local class = module.class(name)
    function class.__init(_, ...)
        check.arguments(name, {}, {}, ...)
    end
    function class.forward(_, x)
        return fn(x)
    end
    M[name] = class
end

plain("Tanh", function(x) return x:tanh() end)
plain("Sigmoid", function(x) return x:sigmoid() end)

-- An activation with an in-place form.
local function activation(name, fn, inplace_fn)
    local class = module.class(name)
    function class:__init(...)
        self.inplace = check.arguments(name, { "inplace" }, { inplace = false }, ...).inplace
    end
    function class:forward(x)
        if self.inplace then
            return inplace_fn(x)
        end
        return fn(x)
    end
    function class:extra_repr()
        return self.inplace and "inplace=True" or ""
    end
    M[name] = class
end

activation("ReLU", function(x) return x:relu() end, function(x) return x:relu_() end)
activation("SiLU", function(x) return F.silu(x) end, function(x) return x:copy_(F.silu(x)) end)

--- x * Phi(x) ("none") or its tanh form. Hendrycks and Gimpel 2016.
---@class GELU: Module
local GELU = module.class("GELU")
M.GELU = GELU

--- approximate: string = "none" (or "tanh")
function GELU:__init(...)
    self.approximate = check.arguments("GELU", { "approximate" }, { approximate = "none" }, ...).approximate
    if self.approximate ~= "none" and self.approximate ~= "tanh" then
        check.fail("GELU: approximate must be none or tanh, got %s", check.describe(self.approximate))
    end
end

function GELU:forward(x)
    return F.gelu(x, { approximate = self.approximate })
end

function GELU:extra_repr()
    return ("approximate='%s'"):format(self.approximate)
end

--- In training, zeroes each element with probability p and scales the others by 1 / (1 - p). Srivastava et al. 2014.
---@class Dropout: Module
local Dropout = module.class("Dropout")
M.Dropout = Dropout

--- p: float = 0.5, inplace: bool = false
function Dropout:__init(...)
    local o = check.arguments("Dropout", { "p", "inplace" }, { p = 0.5, inplace = false }, ...)
    self.p = check.number("Dropout", "p", o.p, 0, 1)
    self.inplace = o.inplace
end

function Dropout:forward(x)
    if not self.training or self.p == 0 then
        return x
    end
    local y = F.dropout(x, self.p, true)
    return self.inplace and x:copy_(y) or y
end

function Dropout:extra_repr()
    return ("p=%s, inplace=%s"):format(check.float_repr(self.p):gsub("%.0$", ""), bool_repr(self.inplace))
end

-- Softmax and LogSoftmax: over one dimension.
local function over_dim(name, fn)
    local class = module.class(name)
    function class:__init(...)
        self.dim = check.integer(name, "dim", check.arguments(name, { "dim" }, { dim = check.none }, ...).dim)
    end
    function class:forward(x)
        return fn(x, self.dim)
    end
    function class:extra_repr()
        return ("dim=%d"):format(self.dim)
    end
    M[name] = class
end

over_dim("Softmax", function(x, dim) return x:softmax(dim) end)
over_dim("LogSoftmax", function(x, dim) return x:log_softmax(dim) end)

--- Flattens the dimensions start_dim to end_dim (default 1 to -1: all but the batch).
---@class Flatten: Module
local Flatten = module.class("Flatten")
M.Flatten = Flatten

--- start_dim: integer = 1, end_dim: integer = -1
function Flatten:__init(...)
    local o = check.arguments("Flatten", { "start_dim", "end_dim" }, { start_dim = 1, end_dim = -1 }, ...)
    self.start_dim = check.integer("Flatten", "start_dim", o.start_dim)
    self.end_dim = check.integer("Flatten", "end_dim", o.end_dim)
end

function Flatten:forward(x)
    return pg.flatten(x, self.start_dim, self.end_dim)
end

function Flatten:extra_repr()
    return ("start_dim=%d, end_dim=%d"):format(self.start_dim, self.end_dim)
end

return M
