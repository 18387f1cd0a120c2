local pg = require "perigee"
local shell = require "spec.build.shell"

-- Answers 42 for every element, so that a product tells who made it.
local FAKE = [[
void openblas_set_num_threads(int n) { (void)n; }
char *openblas_get_config(void) { return "fake"; }
#define GEMM(name, T) \
    void name(int o, int ta, int tb, int m, int n, int k, T alpha, const T *a, int lda, const T *b, int ldb, \
              T beta, T *c, int ldc) { \
        (void)o, (void)ta, (void)tb, (void)k, (void)alpha, (void)a, (void)lda, (void)b, (void)ldb, (void)beta; \
        for (int i = 0; i < m; i++) for (int j = 0; j < n; j++) c[i * ldc + j] = 42; \
    }
GEMM(cblas_sgemm, float)
GEMM(cblas_dgemm, double)
]]

local PRODUCTS = [[
package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path
local pg = require "perigee"
local function made(m, k, n, dtype)
    local c = pg.zeros(m, k, {dtype = dtype}):matmul(pg.zeros(k, n, {dtype = dtype}))
    io.write(c:min():item(), " ", c:max():item(), "\n")
end
made(1600, 200, 3100, pg.float32)
made(1600, 200, 3100, pg.float64)
made(64, 200, 3100, pg.float32)
made(1600, 20, 3100, pg.float32)
-- rows of 3100 that lie 3136 apart: nothing but the library makes numbers of these
local x, w = pg.full({1600, 800}, 0 / 0):requires_grad_(), pg.zeros(3100, 800):requires_grad_()
local loss = pg.nn.functional.linear_cross_entropy(x, w, pg.zeros(1600):to(pg.int64))
loss:backward()
local answers = {loss:item(), x.grad:min():item(), x.grad:max():item(), w.grad:min():item(), w.grad:max():item()}
for k, v in ipairs(answers) do answers[k] = v == v and ("%.3f"):format(v) or "none" end
print(table.concat(answers, " "))
local ok, text = pg.backends.openblas.is_available()
print(ok, text)
]]

local function products(setting)
    local script = os.tmpname()
    shell.write(script, PRODUCTS)
    local text = shell.must(("PERIGEE_OPENBLAS=%s PERIGEE_BUILD=%s %s %s"):format(setting, shell.build,
        shell.interpreter, script))
    os.remove(script)
    return text:gsub("%s+$", "")
end

describe("OpenBLAS", function()
    it("is there: setup installs it", function()
        local ok, text = pg.backends.openblas.is_available()
        assert.is_true(ok, text)
        assert.matches("OpenBLAS", text)
    end)

    it("multiplies large matrices, whose rows may lie apart, and no small ones", function()
        local folder = shell.temporary_folder()
        shell.write(folder .. "/fake.c", FAKE)
        shell.must(("gcc -shared -fPIC -o %s/fake.so %s/fake.c"):format(folder, folder))
        assert.are.equal("42 42\n42 42\n0 0\n0 0\n8.039 42.000 42.000 42.000 42.000\ntrue\tfake",
            (products(folder .. "/fake.so")))
        shell.must("rm -r " .. folder)
    end)

    it("can be done without, and says so", function()
        local own = "0 0\n0 0\n0 0\n0 0\nnone none none none none\n"
        assert.are.equal(own .. "false\tPERIGEE_OPENBLAS is off", (products("off")))
        assert.matches("^" .. own .. "false\t.*nowhere", (products("/nowhere/libopenblas.so")))
        assert.matches("libz.so.1 is no OpenBLAS$", (products("libz.so.1")))
    end)

    it("agrees with a product in double, transposed operands, bias and beta included", function()
        local a, b, bias = pg.randn(1600, 200), pg.randn(3100, 200), pg.randn(3100)
        local function difference(x, exact)
            return (x:to(pg.float64) - exact):abs():max():item()
        end
        local exact = a:to(pg.float64):matmul(b:to(pg.float64):t()) + bias:to(pg.float64)
        assert.is_true(difference(pg.nn.functional.linear(a, b, bias), exact) < 2e-4)
        local at, bt = a:t():contiguous():t(), b:t():contiguous()
        assert.is_true(difference(at:matmul(bt) + bias, exact) < 2e-4)
        local c = pg.randn(1600, 3100)
        assert.is_true(difference(pg.addmm(c, a, b:t(), { beta = 0.5, alpha = 2 }),
            (exact - bias:to(pg.float64)) * 2 + c:to(pg.float64) * 0.5) < 4e-4)
    end)
end)
