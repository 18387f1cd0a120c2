-- Finds the slope and the offset of a noisy line, y = 3 x + 0.5, by gradient descent.

local root = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/.."
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path

local pg = require("perigee")
local train = require("perigee.train")

local compute = train.compute(arg)   -- --device=cpu|cuda, --dtype=float32|...
pg.manual_seed(42)
local x = pg.rand(100, 1)
local y = 3 * x + 0.5 + 0.05 * pg.randn(100, 1)

local w = pg.zeros(1, 1, { requires_grad = true })
local b = pg.zeros(1, { requires_grad = true })
local optimizer = pg.optim.SGD({ w, b }, { lr = 0.5 })

for step = 0, 100 do
    local loss = compute:forward(function() return ((x:matmul(w) + b - y) ^ 2):mean() end)
    optimizer:zero_grad()
    compute:backward(loss)
    compute:step(optimizer)
    if step % 10 == 0 then
        print(("step=%03d loss=%.6f"):format(step, loss:item()))
    end
end
print(("w=%.3f b=%.3f"):format(w:item(), b:item()))
