-- A small network learns XOR.

local root = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/.."
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path

local pg = require("perigee")
local train = require("perigee.train")
local nn, F = pg.nn, pg.nn.functional

local compute = train.compute(arg)   -- --device=cpu|cuda, --dtype=float32|...
pg.manual_seed(42)
local x = pg.tensor { { 0, 0 }, { 0, 1 }, { 1, 0 }, { 1, 1 } }
local y = pg.tensor { { 0 }, { 1 }, { 1 }, { 0 } }

local model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
local optimizer = pg.optim.Adam(model:parameters(), { lr = 0.05 })

for step = 0, 200 do
    local loss = compute:forward(function() return F.mse_loss(model(x), y) end)
    optimizer:zero_grad()
    compute:backward(loss)
    compute:step(optimizer)
    if step % 20 == 0 then
        print(("step=%03d loss=%.6f"):format(step, loss:item()))
    end
end
print(model(x))
