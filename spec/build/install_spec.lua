-- What `cmake --install` puts under a prefix works by itself: for luajit, for a C program, as the program.
-- Where the kernel lets us, the source tree is hidden by an empty file system meanwhile; everywhere, no installed
-- file may hold its path, the environment is empty and the working folder is /.
local shell = require "spec.build.shell"
local quote = shell.quote

local C_PROGRAM = [[
#include <perigee/perigee.h>
#include <stdio.h>

static int fail(const char *what) { printf("%s: %s\n", what, pg_last_error()); return 1; }

/* d/dx of sum(x * x) is 2 x; then shapes that do not fit, which must be an error with a message. */
int main(void)
{
    const double values[3] = {1, 2, 3};
    const int64_t three = 3, two = 2;
    pg_tensor x = PG_HANDLE, y = PG_HANDLE, s = PG_HANDLE, g = PG_HANDLE, z = PG_HANDLE, none = PG_HANDLE;
    if (pg_from_values(&x, values, NULL, 3, &three, 1, PG_FLOAT32, "cpu") < 0) return fail("from_values");
    if (pg_from_values(&z, values, NULL, 2, &two, 1, PG_FLOAT32, "cpu") < 0) return fail("from_values");
    if (pg_requires_grad_(&x, 1) < 0) return fail("requires_grad_");
    if (pg_mul(&y, &x, &x, NULL) < 0) return fail("mul");
    if (pg_sum(&s, &y, NULL, 0, false, -1) < 0) return fail("sum");
    pg_backward_run *run = NULL;
    pg_backward_step step;
    const pg_tensor *root = &s;
    if (pg_backward_begin(&run, &root, 1, NULL, 0, NULL, 0, false, false, false) < 0) return fail("backward");
    do {
        if (pg_backward_next(run, &step) < 0) return fail("next");
    } while (step.kind != PG_STEP_DONE);
    pg_backward_end(run);
    if (pg_get_grad(&g, &x) < 0) return fail("get_grad");
    double gradient[3];
    if (pg_to_values(gradient, NULL, &g, 0, 3) < 0) return fail("to_values");
    printf("%s: gradient %g %g %g\n", pg_version(), gradient[0], gradient[1], gradient[2]);
    if (pg_mul(&none, &x, &z, NULL) >= 0) { puts("shapes 3 and 2 were multiplied"); return 1; }
    printf("error: %s\n", pg_last_error());
    pg_tensor_release(&x); pg_tensor_release(&y); pg_tensor_release(&s); pg_tensor_release(&g); pg_tensor_release(&z);
    return 0;
}
]]

local TRAINING = [[
local pg = require "perigee"
local nn = pg.nn
pg.manual_seed(0)
local model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
local opt = pg.optim.SGD(model:parameters(), {lr = 0.05})
local x = pg.randn(64, 4)
local y = x:sum(1, {keepdim = true})
local first, last
for _ = 1, 50 do
    local loss = nn.functional.mse_loss(model(x), y)
    opt:zero_grad()
    loss:backward()
    opt:step()
    last = loss:item()
    first = first or last
end
assert(last < 0.5 * first, "the loss did not fall: " .. first .. " to " .. last)
print("trained")
]]

describe("cmake --install", function()
    local prefix, hide

    lazy_setup(function()
        prefix = shell.temporary_folder()
        shell.must(("cmake --install %s --prefix %s"):format(quote(shell.build), quote(prefix)))
        -- Private mounts: nobody else sees the source tree vanish.
        for _, unshare in ipairs { "unshare -m", "unshare -rm" } do
            local status = shell.run(unshare .. " sh -c 'mount -t tmpfs none " .. shell.source .. "'")
            if status == 0 then
                hide = unshare
                break
            end
        end
    end)

    lazy_teardown(function()
        shell.run("rm -rf " .. quote(prefix))
    end)

    -- Runs a command from / with an empty environment and, where that can be done, without the source tree.
    local function away(command, variables)
        command = "cd / && " .. shell.bare_environment(variables) .. " " .. command
        if hide then
            command = ("%s sh -c %s"):format(hide,
                quote(("mount -t tmpfs none %s && test ! -e %s/lua && %s"):format(
                    quote(shell.source), quote(shell.source), command)))
        end
        return shell.must(command)
    end

    local function lua_path()
        return { LUA_PATH = prefix .. "/share/lua/5.1/?.lua;" .. prefix .. "/share/lua/5.1/?/init.lua" }
    end

    it("installs the program, the library, the headers, the Lua files and perigee.pc", function()
        for _, path in ipairs {
            "bin/perigee", "lib/libperigee.so", "lib/libperigee.so.0", "include/perigee/perigee.h",
            "include/perigee/perigee_api.h", "share/perigee/lua/perigee/init.lua", "share/lua/5.1/perigee/init.lua",
            "lib/pkgconfig/perigee.pc",
        } do
            local file = io.open(prefix .. "/" .. path, "rb")
            assert.is_truthy(file, path .. " is missing")
            file:close()
        end
    end)

    it("leaves no path of the source tree in what it installs", function()
        if shell.sanitized then
            pending("the sanitizers record where each variable was declared")
        end
        local _, found = shell.run(("grep -rlF %s %s"):format(quote(shell.source), quote(prefix)))
        assert.equal("", found)
    end)

    it("serves luajit's require", function()
        local script = prefix .. "/training.lua"
        shell.write(script, TRAINING)
        assert.equal("trained\n", away("luajit " .. quote(script), lua_path()))
        assert.equal("6\n", away([[luajit -e 'print((require "perigee").tensor({1, 2, 3}):sum():item())']], lua_path()))
    end)

    it("serves a C program that asks pkg-config", function()
        local source, program = prefix .. "/program.c", prefix .. "/program"
        shell.write(source, C_PROGRAM)
        local pc = { PKG_CONFIG_PATH = prefix .. "/lib/pkgconfig" }
        local flags = away("pkg-config --cflags --libs perigee", pc):gsub("%s+$", "")
        away(("gcc -std=c11 -Wall -Wextra -Werror -o %s %s %s -Wl,-rpath,%s/lib"):format(
            quote(program), quote(source), flags, quote(prefix)))
        local output = away(quote(program))
        assert.matches("^%d+%.%d+%.%d+: gradient 2 4 6\n", output)
        assert.matches("error: mul: .*%[3%].*%[2%]", output)
    end)

    it("gives a header that a C++ compiler takes", function()
        if shell.run("command -v g++") ~= 0 then
            pending("no g++ here")
        end
        local source = prefix .. "/header.cpp"
        shell.write(source, "#include <perigee/perigee.h>\nint main() { return pg_version() == 0; }\n")
        away(("g++ -Wall -Wextra -Werror -I%s/include -fsyntax-only %s"):format(quote(prefix), quote(source)))
    end)

    it("installs a program that trains", function()
        local script = prefix .. "/training.lua"
        shell.write(script, TRAINING)
        assert.equal("trained\n", away(quote(prefix .. "/bin/perigee") .. " " .. quote(script)))
    end)
end)
