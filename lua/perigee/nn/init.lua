--- nn: modules, layers, losses, initialisation. PyTorch's torch.nn.

local module = require("perigee.nn.module")
local parameter = require("perigee.nn.parameter")

local nn = {
    Module = module.Module,
    class = module.class,
    is_module = module.is_module,
    Parameter = parameter.Parameter,
    is_parameter = parameter.is_parameter,
    functional = require("perigee.nn.functional"),
    init = require("perigee.nn.initializers"),
    utils = require("perigee.nn.utils"),
    OrderedDict = require("perigee.nn.ordered_dict").new,
}

for _, file in ipairs { "linear", "normalization", "activation", "containers", "loss" } do
    for name, class in pairs(require("perigee.nn." .. file)) do
        nn[name] = class
    end
end

return nn
