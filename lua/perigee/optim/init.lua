--- optim: optimizers and learning rate schedules. PyTorch's torch.optim.

local adam = require("perigee.optim.adam")

return {
    SGD = require("perigee.optim.sgd"),
    Adam = adam.Adam,
    AdamW = adam.AdamW,
    Optimizer = require("perigee.optim.optimizer"),
    lr_scheduler = require("perigee.optim.lr_scheduler"),
}
