--- Where a script computes, and with which numbers: the settings `device` and `dtype` that every script takes.
--
--   local compute = train.compute(settings)           -- prints its line, makes the device the default one
--   local loss = compute:forward(function() ... end)
--   compute:backward(loss)
--   compute:unscale(optimizer)                        -- before gradients are clipped
--   compute:step(optimizer)
--
-- float32 and float64 are the dtype of every tensor. bfloat16 and float16 leave parameters and sums in float32 and run
-- the forward pass under pg.autocast, float16 with its losses scaled (Micikevicius et al. 2018, "Mixed precision
-- training").

local check = require("perigee.check")
local config = require("perigee.train.config")

local Compute = {}
Compute.__index = Compute

--- Rows for train.config.
Compute.DEVICE = { "device", "auto", "cpu, cuda or cuda:N; auto: cuda where there is one, else cpu" }
Compute.DTYPE = { "dtype", "float32", "of the arithmetic", { "float32", "float64", "bfloat16", "float16" } }

local function pick(pg, asked)
    if asked ~= "auto" then
        return asked
    end
    return pg.cuda.is_available() and "cuda" or "cpu"
end

local function describe(pg, device)
    if device:sub(1, 4) == "cuda" then
        return ("%s (%s)"):format(device, pg.cuda.get_device_name(device))
    end
    local threads = pg.get_num_threads()
    return ("%s (%s, %d thread%s)"):format(device, pg.cpu_isa(), threads, threads == 1 and "" or "s")
end

--- Runs f(...) as the dtype asks; gives its results.
function Compute:forward(f, ...)
    if not self.low then
        return f(...)
    end
    return self.pg.autocast(self.type, self.autocast_options, f, ...)
end

--- Gradients of the loss, added up.
function Compute:backward(loss)
    if self.scaler then
        loss = self.scaler:scale(loss)
    end
    loss:backward()
end

--- Gradients as they are without scaling; before they are clipped.
function Compute:unscale(optimizer)
    if self.scaler then
        self.scaler:unscale_(optimizer)
    end
end

--- optimizer:step(), left out where scaled gradients are not finite.
function Compute:step(optimizer)
    if self.scaler then
        self.scaler:step(optimizer)
        self.scaler:update()
    else
        optimizer:step()
    end
end

--- Settings with fields device and dtype, or a script's arguments, which may then set these two alone. Ends the script
-- with 2 where the device is not there.
---@param settings table
---@return table compute device: string, dtype: a floating dtype
local function compute(settings)
    local pg = require("perigee")
    if settings[0] or settings[1] or next(settings) == nil then
        settings = config { Compute.DEVICE, Compute.DTYPE }:parse_or_exit(settings)
    end
    if type(settings.device) ~= "string" or type(settings.dtype) ~= "string" then
        check.fail("compute: expected settings with device and dtype, got %s and %s", check.describe(settings.device),
            check.describe(settings.dtype))
    end
    local self = setmetatable({ pg = pg, device = pick(pg, settings.device), dtype = pg[settings.dtype] }, Compute)
    local ok, why = pcall(pg.set_default_device, self.device)
    if not ok then
        io.stderr:write(("--device=%s: %s\n"):format(settings.device, (tostring(why):gsub("^[^:]*:%d+: ", ""))))
        os.exit(2)
    end
    self.low = settings.dtype == "bfloat16" or settings.dtype == "float16"
    self.type = self.device:match("^%a+")
    if self.low then
        self.autocast_options = { dtype = self.dtype }
        self.scaler = settings.dtype == "float16" and pg.amp.GradScaler(self.type) or nil
    else
        pg.set_default_dtype(self.dtype)
    end
    print(("on %s, %s%s"):format(describe(pg, self.device), settings.dtype, self.low and " by autocast" or ""))
    return self
end

return { DEVICE = Compute.DEVICE, DTYPE = Compute.DTYPE, compute = compute }
